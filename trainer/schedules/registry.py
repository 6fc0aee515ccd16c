"""From a recipe's section to a schedule."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..budget import Budget
from ..criteria import Criterion
from ..lesson import NO_LESSON, Lesson
from ..pruned import PrunedModel
from ..recipe import LayerwiseSchedule, OneShotSchedule, ScheduleSpec
from .iterative import Iterative
from .layerwise import Layerwise
from .scores import Recover, nothing


class Schedule(Protocol):
    """In which steps a budget is reached."""

    def prune(
        self,
        net: PrunedModel,
        criterion: Criterion,
        budget: Budget,
        images: NDArray[np.float32],
        recover: Recover = nothing,
        lesson: Lesson = NO_LESSON,
    ) -> None:
        """Cut `net` down to its budget, with `recover(net, number)` between the cuts. images: (N, C, H, W)."""
        ...


def build_schedule(section: ScheduleSpec) -> Schedule:
    """The schedule that a recipe asks for."""
    if isinstance(section, OneShotSchedule):
        return Iterative(rounds=1)
    if isinstance(section, LayerwiseSchedule):
        return Layerwise(share=section.share)
    return Iterative(rounds=section.steps, law=section.law, power=section.power)
