"""What schedules have in common: scores of the moment, and what happens between cuts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import ConfigError

from ..criteria import Criterion
from ..lesson import Learning, Lesson
from ..pruned import PrunedModel

Recover = Callable[[PrunedModel, int], None]
"""Called between cuts with the net and the number of the round, from 1."""


def nothing(net: PrunedModel, number: int) -> None:
    """No recovery."""


def present_scores(
    net: PrunedModel, criterion: Criterion, images: NDArray[np.float32], lesson: Lesson
) -> NDArray[np.float64]:
    """The criterion's scores (units,); what is gone stays gone, for a dead unit scores lowest of all.

    Raises ConfigError for a criterion whose scores are none.
    """
    scores = criterion.score(Learning(net=net, lesson=lesson), images)
    _check(criterion, scores, len(net.channels.unit_labels))
    gone = np.fromiter(net.cut, np.int64, len(net.cut))
    return np.where(np.isin(net.channels.unit_labels, gone), -np.inf, scores)


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
