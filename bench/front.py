"""Nets of one run between accuracy and latency: which of them nobody beats.

A net is a score s on the validation images and an interval [l, h] of its speed-up against the dense net, which itself
has [1, 1]. Net q *dominates* net p where it is at least as accurate, at least as fast beyond the intervals, and better
in one of the two:

    s(q) >= s(p)   and   l(q) >= h(p)   and   (s(q) > s(p)  or  l(q) > h(p))

This is a strict partial order (l <= h makes it transitive), so every dominated net is dominated by one that is not:
those form the *front*. Nets whose intervals overlap do not dominate each other, for nobody has measured which is
faster. Scores are compared as they are: how far chance moves them is not known here. Scores on the test images are told
of each net, and decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeslim.schema import dumps

from .net import Net
from .result import Speedup, read_result

SCHEMA = 1
"""The newest front that this edgeslim reads, and the one it writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Where a net stands. score: higher = better.  low, high: the interval of its speed-up."""

    score: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.score) and 0.0 < self.low <= self.high < math.inf):
            raise ValueError(f"score {self.score} with speed-up from {self.low} to {self.high} is no place on a front")

    def dominates(self, other: Mark) -> bool:
        """Whether nobody would choose `other` beside this; see the module docstring."""
        at_least = self.score >= other.score and self.low >= other.high
        return at_least and (self.score > other.score or self.low > other.high)


def dominators(marks: Mapping[str, Mark]) -> dict[str, str]:
    """Name of a dominated net -> name of one on the front that dominates it, of several the most accurate one."""
    beaten = {name: [n for n, m in marks.items() if m.dominates(mark)] for name, mark in marks.items()}
    front = [name for name, by in beaten.items() if not by]
    return {
        name: max((n for n in by if n in front), key=lambda n: (marks[n].score, marks[n].low))
        for name, by in beaten.items()
        if by
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One net of a run, the dense one or one that was pruned down to a level of the recipe's budget."""

    name: str
    share: float
    """How much of the way to the recipe's budget it was to go, on a logarithmic scale: 0 is dense, 1 the budget."""
    validation: Mapping[str, float]
    """Scores on the validation images, by which the front is decided; those on the test images are the net's."""
    net: Net
    speedup: Speedup | None
    """Against the dense net, which has none."""
    dominated_by: str | None
    """Name of one that is at least as accurate and measurably as fast; None: it is on the front."""
    same_plan: tuple[str, ...]
    """Names of looser levels for which the same channels went, and which are not reported for themselves."""
    report: str | None
    """Its own report; the dense net has none."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0 or (self.share == 0.0) != (self.speedup is None):
            raise ValueError(
                f"{self.name}: share {self.share} {'without' if self.speedup is None else 'with'} speed-up"
            )

    def mark(self, metric: str) -> Mark:
        """Where it stands by a score on the validation images."""
        speed = self.speedup
        return Mark(
            score=self.validation[metric],
            low=1.0 if speed is None else speed.low,
            high=1.0 if speed is None else speed.high,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What `compress --pareto` found. metric: which score on the validation images decides."""

    schema: int = SCHEMA
    name: str
    metric: str
    dense: FrontPoint
    points: tuple[FrontPoint, ...]
    """From the loosest level to the recipe's own budget, dominated ones among them."""
    report: str
    notes: tuple[str, ...]
    """What the run had to say; of one point with its name in front."""

    def __post_init__(self) -> None:
        nets = self.nets
        marks = {}
        for net in nets:
            if self.metric not in net.validation:
                raise ValueError(f"{net.name} has no {self.metric} on the validation images")
            marks[net.name] = net.mark(self.metric)
        if len(marks) != len(nets) or not self.points:
            raise ValueError(
                f"points are named {[net.name for net in nets]}: each needs another name, and one is needed"
            )
        shares = [net.share for net in nets]
        if shares != sorted(set(shares)):
            raise ValueError(f"shares are {shares}: they must rise from the dense net's 0")
        wrong = {net.name for net in nets if net.dominated_by is None} ^ (marks.keys() - dominators(marks).keys())
        if wrong:
            raise ValueError(f"dominated_by of {', '.join(sorted(wrong))} is not what the figures say")

    @property
    def nets(self) -> tuple[FrontPoint, ...]:
        """The dense net and the points."""
        return (self.dense, *self.points)

    def to_json(self) -> str:
        """The front as JSON text."""
        return dumps(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Front:
        """Read what `to_json` wrote. Raises DataError for anything else, or for a newer schema."""
        return read_result(cls, text, SCHEMA, "front", "give the front.json of a run of `edgeslim compress --pareto`")


def decided(points: Sequence[FrontPoint], metric: str) -> tuple[FrontPoint, ...]:
    """The same nets, each with who dominates it."""
    by = dominators({point.name: point.mark(metric) for point in points})
    return tuple(replace(point, dominated_by=by.get(point.name)) for point in points)
