"""What schedules have in common: scores of the moment, and what happens between cuts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..criteria import Criterion
from ..pruned import PrunedModel

Recover = Callable[[PrunedModel, int], None]
"""Called between cuts with the net and the number of the round, from 1."""


def nothing(net: PrunedModel, number: int) -> None:
    """No recovery."""


def present_scores(net: PrunedModel, criterion: Criterion, images: NDArray[np.float32]) -> NDArray[np.float64]:
    """The criterion's scores (units,); what is gone stays gone, for a dead unit scores lowest of all."""
    gone = np.fromiter(net.cut, np.int64, len(net.cut))
    return np.where(np.isin(net.channels.unit_labels, gone), -np.inf, criterion.score(net, images))
