"""The section of a budget that is a target: what the net may take on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from edgeslim.errors import ConfigError

from .recipe_base import PositiveFloat, Section


class TargetBudget(Section):
    """Keep the most importance within a target, such as `latency=0.5x` or `latency=8ms,memory<64MB`.

    Widths are those that pay on the device: they come from its own measurements, and the net is measured before it is
    accepted.
    """

    name: Literal["target"]
    target: str
    part: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Of the way from the dense net to the target, in equal ratios: 0.5 of latency=0.25x is 0.5x."""
    device: str = "cpu:1"
    """cpu:N is ONNX Runtime on this machine's CPU with N threads."""
    profile: Path | None = None
    """The device profile; one file in the user's cache where absent."""
    allow_foreign_profile: bool = False
    """Plan for a device that is not here by the profile that was taken on it. Nothing is measured then."""
    min_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    """Of every family's width, that stays."""
    nets: Annotated[int, Field(ge=8)] = 40
    """How many plans are measured for a profile."""
    seconds: PositiveFloat = 3.0
    """Of one comparison of a plan with the dense net, about."""

    @field_validator("target")
    @classmethod
    def _understood(cls, target: str) -> str:
        from .budget.targets import parse_target  # the package `budget` reads the recipe's sections itself

        try:
            parse_target(target)
        except ConfigError as error:
            raise ValueError(f"{error.message}; {error.hint}" if error.hint else error.message) from error
        return target
