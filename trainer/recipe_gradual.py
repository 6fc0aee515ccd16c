"""The recipe's section of gradual pruning. What it means is in `schedules.gradual`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .recipe_base import NonNegativeFloat, PositiveFloat, PositiveInt, Section


class GradualSchedule(Section):
    """Cut while `sparsify` trains: what goes next is under a growing pressure, so that its removal costs little."""

    name: Literal["gradual"]
    cuts: PositiveInt = 10
    start: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """The share of sparsify.fit.steps after which pressure sets in."""
    end: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7
    """The share after which the net has its final width."""
    law: Literal["geometric", "polynomial"] = "polynomial"
    power: PositiveFloat = 3.0
    """Of the polynomial law; 1 makes it geometric."""
    pressure: NonNegativeFloat = 5.0
    """Left alone, exp(-pressure) of a candidate's weights is left when it is cut; 0 cuts without."""

    @model_validator(mode="after")
    def _goes_forward(self) -> GradualSchedule:
        if self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        return self

    def cut_steps(self, steps: int) -> tuple[int, ...]:
        """Of a stage of `steps` steps: after how many pressure sets in, and after how many each cut comes."""
        first, last = round(self.start * steps), round(self.end * steps)
        return tuple(first + (last - first) * number // self.cuts for number in range(self.cuts + 1))

    def check_steps(self, steps: int) -> None:
        """Raise ValueError where a stage of `steps` steps is too short for that many cuts."""
        at = self.cut_steps(steps)
        if at[-1] - at[0] < self.cuts:
            raise ValueError(
                f"prune.schedule has {self.cuts} cuts between steps {at[0]} and {at[-1]} of sparsify.fit.steps "
                f"({steps}): ask for fewer cuts, or more steps"
            )
