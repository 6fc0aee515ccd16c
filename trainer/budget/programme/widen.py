"""Takes back cuts that buy nothing: no plan should be one that a wider plan beats.

Devices compute in blocks: of widths in the same block only the widest is worth having, and a peak of memory does not
shrink where another family stands at it. So of all families' wider rungs at which no resource that counts is used more
than now, the one that keeps the most importance is taken, until there is none. Families are widened one at a time: that
two together would be free where neither is alone is not looked for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from .problem import Problem
from .usage import usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """A cut, or a part of it, that was taken back: the family's width in the plan, and now."""

    family: int
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Widened:
    """widths: one a family.  undone: what changed, by family."""

    widths: tuple[int, ...]
    undone: tuple[Undone, ...]


def widen(problem: Problem, widths: Sequence[int], *, resources: Collection[str] | None = None) -> Widened:
    """Widths no narrower anywhere, that use no more of any of `resources`: by default, of those that have a limit.

    Raises ValueError if a family cannot have its width, or a resource is not counted.
    """
    counting = (
        sorted(name for name, limit in problem.limits.items() if limit < math.inf)
        if resources is None
        else sorted(resources)
    )
    unknown = sorted(set(counting) - set(problem.resources))
    if unknown:
        raise ValueError(f"there are no {unknown}; there are {', '.join(problem.resources)}")
    usage(problem, widths)
    now = list(widths)
    while True:
        steps = [
            (ladder.values[rung] - ladder.values[ladder.rung(now[family])], family, ladder.widths[rung])
            for family, ladder in enumerate(problem.ladders)
            if (rung := _widest_free(problem, now, family, counting)) is not None
        ]
        if not steps:
            break
        _, family, width = max(steps)
        now[family] = width
    undone = (
        Undone(family=family, before=old, after=new) for family, (old, new) in enumerate(zip(widths, now)) if old != new
    )
    return Widened(widths=tuple(now), undone=tuple(undone))


def _widest_free(problem: Problem, widths: Sequence[int], family: int, counting: Sequence[str]) -> int | None:
    """The widest rung of a family, wider than now, at which nothing that counts is used more; None if there is none."""
    ladder = problem.ladders[family]
    first = ladder.rung(widths[family])
    if first + 1 == len(ladder.widths):
        return None
    tried = np.array(ladder.widths[first:], np.int64)  # the first is as it is now
    free = np.ones(len(tried), bool)
    touching = [charge for charge in problem.charges if family in charge.families()]
    for name in counting:
        if name in problem.moments:
            peaks = _peaks(problem, widths, family, name, tried.tolist())
            free &= np.array(peaks) <= peaks[0]
            continue
        costs = []
        for charge in touching:
            if name in charge.costs:
                totals = (
                    total.at(widths) + total.coefficients.get(family, 0) * (tried - widths[family])
                    for total in (charge.inputs, charge.outputs)
                )
                costs.append(charge.cost(name, *totals))
        for place in range(len(tried)):
            # One rounding for all: what some charges gain and others lose is weighed exactly.
            free[place] &= math.fsum(share for own in costs for share in (own[place], -own[0])) <= 0.0
    widest = int(np.flatnonzero(free)[-1])
    return first + widest if widest else None


def _peaks(problem: Problem, widths: Sequence[int], family: int, name: str, tried: Sequence[int]) -> list[float]:
    """The peak at each width of one family."""
    trials = ([*widths[:family], width, *widths[family + 1 :]] for width in tried)
    return [max(moment.at(trial) for moment in problem.moments[name]) for trial in trials]
