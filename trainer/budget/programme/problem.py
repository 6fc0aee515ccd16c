"""What the width programme is asked: ladders, charges, moments, limits. Arrays in, widths out; no graph, no device.

A *ladder* is the widths a family may have, each with the importance that stays at it; a *rung* is one of them. A
*charge* is what one layer uses of every resource, as a function of how many channels it reads and how many it makes.
Both are *totals*:

    total = constant + sum_f coefficients[f] * width_f

so a layer may read several families side by side, one family twice, or nothing that is ever cut. What a charge costs
may be any function of its two totals, a staircase that comes down again among them. Two kinds of resource:

    charged    usage = constants[r] + sum over charges of costs[r](inputs, outputs)      time, MACs, parameters, bytes
    peak       usage = max over moments of (constant + sum_f per_channel[f] * width_f)   memory

Families are numbered as they stand in `Problem.ladders`. All of this is made by the planner, never read from a user:
what is wrong raises ValueError at birth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Costs = NDArray[np.float64]


class Cost(Protocol):
    """What a layer uses of one resource."""

    def __call__(self, inputs: Counts, outputs: Counts, /) -> NDArray[np.floating] | NDArray[np.integer]:
        """Two arrays of channels, of the same shape -> the cost of every pair, in that shape. Pure and finite."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The widths one family may have, ascending, and the importance that stays at each.

    values: (rungs,) sums of the scores of the channels that stay; a wider rung keeps no less.
    """

    widths: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.values):
            raise ValueError(
                f"a ladder has {len(self.widths)} widths and {len(self.values)} values; needs 1, or more of both"
            )
        if self.widths[0] < 1 or any(a >= b for a, b in pairwise(self.widths)):
            raise ValueError(f"a ladder's widths are {self.widths}; they must be at least 1 and ascend")
        if not all(map(math.isfinite, self.values)) or any(a > b for a, b in pairwise(self.values)):
            raise ValueError(f"a ladder's values are {self.values}; they must be finite and must not descend")

    def rung(self, width: int) -> int:
        """Which rung has this width. Raises ValueError if none has."""
        return self.widths.index(width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """How many channels a layer reads or makes. coefficients: family -> how often it takes part; may be empty."""

    constant: int = 0
    coefficients: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.constant < 0 or any(count < 1 for count in self.coefficients.values()):
            raise ValueError(
                f"a total of {self.constant} and {dict(self.coefficients)}: constant >= 0, coefficients >= 1"
            )

    def at(self, widths: Sequence[int]) -> int:
        """The channels when the families are that wide."""
        return self.constant + sum(count * widths[family] for family, count in self.coefficients.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One layer. costs: resource -> its cost.

    Where only the outputs matter (pooling, depthwise, concatenation) inputs are left out, and costs are asked with 0.
    """

    name: str
    outputs: Total
    inputs: Total = field(default_factory=Total)
    costs: Mapping[str, Cost]

    def families(self) -> set[int]:
        """Whose widths it depends on."""
        return {*self.inputs.coefficients, *self.outputs.coefficients}

    def cost(self, resource: str, inputs: Counts, outputs: Counts) -> Costs:
        """Of totals of one shape. Raises ValueError if what comes back has another shape or is not finite."""
        found = np.asarray(self.costs[resource](inputs, outputs), np.float64)
        if found.shape != inputs.shape:
            raise ValueError(f"{self.name}: costs of {resource} have shape {found.shape} for totals of {inputs.shape}")
        if not np.isfinite(found).all():
            where = np.flatnonzero(~np.isfinite(found.ravel()))[0]
            raise ValueError(
                f"{self.name}: {resource} of {inputs.ravel()[where]} -> {outputs.ravel()[where]} channels is "
                f"{found.ravel()[where]}; costs must be finite"
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is held at one time: constant + sum_f per_channel[f] * width_f. per_channel: family -> at least 0."""

    constant: float = 0.0
    per_channel: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        amounts = (self.constant, *self.per_channel.values())
        if not all(map(math.isfinite, amounts)) or any(amount < 0 for amount in self.per_channel.values()):
            raise ValueError(
                f"a moment of {self.constant} and {dict(self.per_channel)}: finite, per channel at least 0"
            )

    def at(self, widths: Sequence[int]) -> float:
        """What is held when the families are that wide."""
        return math.fsum([self.constant, *(each * widths[family] for family, each in self.per_channel.items())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is asked; see the module docstring.

    constants: of charged resources, what no family changes.  moments: of peak resources.  limits: usage <= limit.
    A resource without a limit is counted and bounds nothing.
    """

    ladders: tuple[Ladder, ...]
    charges: tuple[Charge, ...] = ()
    constants: Mapping[str, float] = field(default_factory=dict)
    moments: Mapping[str, tuple[Moment, ...]] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named: list[tuple[str, Iterable[int]]] = [(charge.name, charge.families()) for charge in self.charges]
        named += [(name, moment.per_channel) for name, moments in self.moments.items() for moment in moments]
        for name, families in named:
            unknown = sorted(family for family in families if not 0 <= family < len(self.ladders))
            if unknown:
                raise ValueError(f"{name} depends on families {unknown}; there are 0 to {len(self.ladders) - 1}")
        both = sorted(self.charged() & set(self.moments))
        if both:
            raise ValueError(f"{both} have charges or constants, and moments; a resource is either charged or a peak")
        empty = sorted(name for name, moments in self.moments.items() if not moments)
        if empty:
            raise ValueError(f"{empty} have no moments; a peak is a maximum over one at least")
        if not all(map(math.isfinite, self.constants.values())):
            raise ValueError(f"constants are {dict(self.constants)}; they must be finite")
        for name, limit in self.limits.items():
            if name not in self.resources or math.isnan(limit):
                raise ValueError(f"the limit of {name} is {limit}; limits are numbers, of {', '.join(self.resources)}")

    def charged(self) -> set[str]:
        """The resources that add up over charges."""
        return {*self.constants, *(name for charge in self.charges for name in charge.costs)}

    @property
    def resources(self) -> tuple[str, ...]:
        """All that is counted, sorted."""
        return tuple(sorted(self.charged() | set(self.moments)))
