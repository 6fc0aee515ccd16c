"""Prune in rounds: score, cut a further share, let the net recover, score again.

    share_k = k / K of the way to the budget, on a logarithmic scale: each round keeps the same fraction of what
    the round before left.

Scores are taken anew in every round, because what a channel carries changes when its neighbours go.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import ConfigError

from ..budget import Budget, spare_one
from ..criteria import Criterion
from ..lesson import NO_LESSON, Learning, Lesson
from ..pruned import PrunedModel


def prune_iteratively(
    net: PrunedModel,
    criterion: Criterion,
    budget: Budget,
    images: NDArray[np.float32],
    rounds: int,
    recover: Callable[[PrunedModel, int], None] | None = None,
    lesson: Lesson = NO_LESSON,
) -> None:
    """Cut `net` down to its budget in rounds 1 .. `rounds`, with `recover(net, round)` after all but the last.

    images: (N, C, H, W) float32, normalised, for criteria that look at feature maps or gradients.  lesson: what
    gradients are taken of. Raises ConfigError for a criterion whose scores are none.
    """
    for number in range(1, rounds + 1):
        scores = criterion.score(Learning(net=net, lesson=lesson), images)
        _check(criterion, scores, len(net.channels.unit_labels))
        # What is cut stays cut: it scores lowest of all.
        gone = net.cut
        labels = net.channels.unit_labels
        scores = np.where(np.isin(labels, np.fromiter(gone, np.int64, len(gone))), -np.inf, scores)
        net.apply_cut(spare_one(net.channels, budget.select(net.channels, scores, number / rounds) | gone, scores))
        if recover is not None and number < rounds:
            recover(net, number)


def _check(criterion: Criterion, scores: object, units: int) -> None:
    if not isinstance(scores, np.ndarray) or scores.shape != (units,) or scores.dtype.kind != "f":
        seen = f"{scores.dtype} {scores.shape}" if isinstance(scores, np.ndarray) else type(scores).__name__
        raise ConfigError(
            f"criterion {criterion.name} scored {seen}; this net has {units} units", "return float64, one a unit"
        )
    if np.isnan(scores).any():
        raise ConfigError(
            f"criterion {criterion.name} scored {int(np.isnan(scores).sum())} of {units} units nan",
            "look at the net's weights and the calibration images: one of them is not finite",
        )
