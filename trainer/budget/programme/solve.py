"""The widths that keep the most importance within all limits, by mixed-integer linear programming.

    maximise  sum_f values[f][rung of f]    subject to  usage[r] <= limits[r]  for every r

The rows are those of `formulate.py`, each divided by its largest coefficient; importance is counted in thousandths of
what is at stake. So microseconds, MACs and bytes are of a size to which the solver's absolute tolerances (1e-6 and
less) mean nothing, and importance that must stay anyway, however much, does not blur the rest. What comes back is
counted again from the problem. Where a tolerance let the solver step over a limit, it is asked again without the
widths that it should not have chosen, at last with that limit a little tighter; bounds of the latter do not count.

The same problem gives the same widths, however its charges are sorted, unless time runs out: how far a search gets
by then is the machine's doing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgeslim.errors import BudgetError, InvariantError

from .formulate import Formulation, formulate
from .highs import Cap, minimise
from .problem import Problem
from .reach import chosen, largest, out_of_reach
from .solution import Solution, at_stake, check_solution
from .usage import exceeds, most, usage, value

SCALE = 1e3
"""What is at stake, in the solver's units: its absolute gap of 1e-6 is a billionth of it."""
BASE = 9 * SCALE
"""Added to lost importance: the objective lies between 9 and 10 scales, and a gap relative to it is one of stakes."""
MARGINS = (0.0,) * 8 + (2e-6, 2e-5)
"""Try by try, by how much a limit that was stepped over is tightened, in shares of its row's largest coefficient."""
NEARLY = 1e-6
"""A gap that is above the one asked for by no more than this was met: so far the tolerances of rows move a bound."""


def solve(problem: Problem, *, seconds: float = 5.0, gap: float = 1e-3) -> Solution:
    """The best widths up to `gap`, a share of what is at stake; if time runs out, the best that were found.

    Raises OutOfReach (a BudgetError) if no widths meet the limits, BudgetError if none were found in time. Why is then
    looked into resource by resource, each in the same time again.
    """
    if not seconds > 0 or not 0 <= gap < 1:
        raise ValueError(f"{seconds} seconds and a gap of {gap}; needs more than 0, and from 0 to below 1")
    limited = sorted(name for name, limit in problem.limits.items() if limit < math.inf)
    formulation = formulate(problem, limited)
    stake = at_stake(problem)
    lost = np.zeros(formulation.columns)
    for ladder, own in zip(problem.ladders, formulation.choices):
        if own and stake:
            lost[own.start : own.stop] = (ladder.values[-1] - np.array(ladder.values)) * (SCALE / stake)
    bound = -math.inf
    excluded: list[Cap] = []
    tight: set[str] = set()
    for margin in MARGINS:
        caps = [*excluded]
        for name in limited:
            for row in formulation.usage[name]:
                scale = largest(row.coefficients)
                room = (most(problem.limits[name]) - row.offset) / scale - (margin if name in tight else 0.0)
                caps.append(Cap(coefficients=row.coefficients / scale, most=room))
        answer = minimise(formulation, lost, base=BASE, caps=caps, seconds=seconds, gap=gap * SCALE / (BASE + SCALE))
        if answer is None:
            raise out_of_reach(problem, limited, seconds)
        if answer.columns is None:
            raise _too_late(problem, limited, seconds)
        if margin == 0.0:
            bound = max(bound, answer.bound)
        widths = chosen(problem, formulation, answer.columns)
        used = usage(problem, widths)
        over = [name for name in limited if exceeds(used[name], problem.limits[name])]
        if not over:
            break
        tight.update(over)
        excluded += [_exclusion(problem, formulation, widths, name) for name in over]
    else:
        raise InvariantError(f"the solver's widths {widths} use {used} where {dict(problem.limits)} are allowed")
    # Family by family: what must stay anyway may be so large that the sums of two nets differ in nothing.
    short = math.fsum(ladder.values[-1] - ladder.values[ladder.rung(w)] for ladder, w in zip(problem.ladders, widths))
    away = max(0.0, short / stake - (bound - BASE) / SCALE) if stake else 0.0
    found = Solution(widths=widths, value=value(problem, widths), usage=used, gap=away, proven=away <= gap + NEARLY)
    check_solution(problem, found)
    return found


def _exclusion(problem: Problem, formulation: Formulation, widths: Sequence[int], resource: str) -> Cap:
    """Rules out these widths of the families that a resource depends on, whatever the others have.

    Of a peak, also all wider ones of the families that are held then: a moment only grows with them.
    """
    if resource in problem.moments:
        moment = max(problem.moments[resource], key=lambda moment: moment.at(widths))
        families = {family for family, each in moment.per_channel.items() if each > 0}
    else:
        families = {f for charge in problem.charges if resource in charge.costs for f in charge.families()}
    coefficients = np.zeros(formulation.columns)
    involved = 0
    for family in sorted(families):
        own = formulation.choices[family]
        if own:
            rung = problem.ladders[family].rung(widths[family])
            coefficients[own[rung] : own.stop if resource in problem.moments else own[rung] + 1] = 1.0
            involved += 1
    return Cap(coefficients=coefficients, most=involved - 1.0)


def _too_late(problem: Problem, limited: list[str], seconds: float) -> BudgetError:
    """What to say when time ran out before any widths were found: perhaps there are none."""
    why = out_of_reach(problem, limited, seconds)
    if any(exceeds(why.least[name].bound, problem.limits[name]) for name in limited):
        return why
    return BudgetError(
        f"no widths that meet all limits were found within {seconds:g} s, and none were ruled out",
        "give the search more time, allow more of a resource, or offer fewer widths a family",
    )
