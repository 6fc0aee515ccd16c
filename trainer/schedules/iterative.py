"""Prune in rounds: score, cut a further share, let the net recover, score again.

    share_k = k / K of the way to the budget, on a logarithmic scale: each round keeps the same fraction of what
    the round before left.

Scores are taken anew in every round, because what a channel carries changes when its neighbours go.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..budget import Budget, spare_one
from ..criteria import Criterion
from ..pruned import PrunedModel


def prune_iteratively(
    net: PrunedModel,
    criterion: Criterion,
    budget: Budget,
    images: NDArray[np.float32],
    rounds: int,
    recover: Callable[[PrunedModel, int], None] | None = None,
) -> None:
    """Cut `net` down to its budget in rounds 1 .. `rounds`, with `recover(net, round)` after all but the last.

    images: (N, C, H, W) float32, normalised, for criteria that look at feature maps.
    """
    for number in range(1, rounds + 1):
        scores = criterion.score(net, images)
        # What is cut stays cut: it scores lowest of all.
        gone = net.cut
        labels = net.channels.unit_labels
        scores = np.where(np.isin(labels, np.fromiter(gone, np.int64, len(gone))), -np.inf, scores)
        net.apply_cut(spare_one(net.channels, budget.select(net.channels, scores, number / rounds) | gone, scores))
        if recover is not None and number < rounds:
            recover(net, number)
