"""From a recipe's section to a schedule."""

from __future__ import annotations

from typing import Protocol

from ..budget import Budget
from ..pruned import PrunedModel
from ..recipe import LayerwiseSchedule, OneShotSchedule, ScheduleSpec
from .iterative import Iterative
from .layerwise import Layerwise
from .scoring import Recover, Scoring, nothing


class Schedule(Protocol):
    """In which steps a budget is reached."""

    def prune(self, net: PrunedModel, scoring: Scoring, budget: Budget, recover: Recover = nothing) -> None:
        """Cut `net` down to its budget, with `recover(net, number)` between the cuts."""
        ...


def build_schedule(section: ScheduleSpec) -> Schedule:
    """The schedule that a recipe asks for."""
    if isinstance(section, OneShotSchedule):
        return Iterative(rounds=1)
    if isinstance(section, LayerwiseSchedule):
        return Layerwise(share=section.share)
    return Iterative(rounds=section.rounds, law=section.law, power=section.power)
