"""By what a schedule decides which units go: a criterion with what it looks at, asked anew after every change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import ConfigError

from ..budget import Budget, spare_one
from ..criteria import Criterion
from ..lesson import NO_LESSON, Learning, Lesson
from ..pruned import PrunedModel

Recover = Callable[[PrunedModel, int], None]
"""Called between cuts with the net and the number of the round, from 1."""


def nothing(net: PrunedModel, number: int) -> None:
    """No recovery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """A criterion and what it looks at.

    images: (N, C, H, W) float32, normalised, for criteria that look at feature maps or gradients.  lesson: what
    gradients are taken of.
    """

    criterion: Criterion
    images: NDArray[np.float32]
    lesson: Lesson = NO_LESSON

    def scores(self, net: PrunedModel) -> NDArray[np.float64]:
        """The scores of the moment (units,); what is gone stays gone, for a dead unit scores lowest of all.

        Raises ConfigError for a criterion whose scores are none.
        """
        scores = self.criterion.score(Learning(net=net, lesson=self.lesson), self.images)
        _check(self.criterion, scores, len(net.channels.unit_labels))
        gone = np.fromiter(net.cut, np.int64, len(net.cut))
        # Only what has left scores -infinity: by a criterion, such as a logarithm of zero, that is the lowest score.
        finite = scores[np.isfinite(scores)]
        scores = np.where(np.isneginf(scores), finite.min() if finite.size else 0.0, scores)
        return np.where(np.isin(net.channels.unit_labels, gone), -np.inf, scores)

    def choose(self, net: PrunedModel, budget: Budget, share: float = 1.0) -> frozenset[int]:
        """Labels of all units that are to be gone after `share` of the way to the budget, the gone ones among them.

        No tensor is left without a channel. Raises BudgetError for a budget out of reach, ConfigError as `scores`.
        """
        scores = self.scores(net)
        return spare_one(net.channels, budget.select(net.channels, scores, share) | net.cut, scores)


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
