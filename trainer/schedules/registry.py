"""From a recipe's section to a schedule."""

from __future__ import annotations

from typing import Protocol

from ..budget import Budget
from ..pruned import PrunedModel
from ..recipe import IterativeSchedule, LayerwiseSchedule, OneShotSchedule
from ..recipe_gradual import GradualSchedule
from .gradual import Gradual
from .iterative import Iterative
from .layerwise import Layerwise
from .scoring import Recover, Scoring, nothing


class Schedule(Protocol):
    """In which rounds a budget is reached, between trainings."""

    def prune(self, net: PrunedModel, scoring: Scoring, budget: Budget, recover: Recover = nothing) -> None:
        """Cut `net` down to its budget, with `recover(net, number)` between the cuts."""
        ...


def build_schedule(section: OneShotSchedule | IterativeSchedule | LayerwiseSchedule) -> Schedule:
    """The schedule that a recipe asks for between trainings."""
    if isinstance(section, OneShotSchedule):
        return Iterative(rounds=1)
    if isinstance(section, LayerwiseSchedule):
        return Layerwise(share=section.share)
    return Iterative(rounds=section.rounds, law=section.law, power=section.power)


def build_gradual(section: GradualSchedule, steps: int) -> Gradual:
    """The schedule that cuts within a training of `steps` steps."""
    return Gradual(at=section.cut_steps(steps), law=section.law, power=section.power, pressure=section.pressure)
