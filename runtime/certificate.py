"""The proof that travels in a bundle: which two nets were compared, on what, and how far apart they were.

A certificate is a list of stages. Each compares one form of the net (compact torch, ONNX, ...) with its reference,
as a rule the masked net, elementwise, |a - b| <= atol + rtol * |b| with b the reference, and states its own
tolerance. The comparison belongs to the exporter; this is the record that the exporter writes and that
runtime and reports read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One comparison: `name` against `reference`, on `inputs` (words, such as "random 2x64x96")."""

    name: str
    reference: str
    inputs: str
    max_abs: float | None
    """Largest |a - b|, in the output's unit; None where an output was not finite."""
    max_rel: float | None
    """Largest |a - b| / |b| over the elements with b != 0; None where an output was not finite."""
    atol: float
    rtol: float
    passed: bool

    def __post_init__(self) -> None:
        for name in ("max_abs", "max_rel", "atol", "rtol"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"stage {self.name!r}: {name} is {value}; it must be finite and at least 0")
        if self.passed and (self.max_abs is None or self.max_rel is None):
            raise ValueError(f"stage {self.name!r} passed, yet an error is not finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """All stages of one export, in the order in which the forms are made.

    missing: forms that there are none of -> the reason.
    """

    stages: tuple[Stage, ...]
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True when there is at least one stage and every stage held."""
        return bool(self.stages) and all(stage.passed for stage in self.stages)
