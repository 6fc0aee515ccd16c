"""What given widths use and keep, counted from the problem itself: what every answer is held against.

Sums are rounded once (`math.fsum`), so they do not depend on the order of charges, and where no charge grows the sum
does not either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .problem import Problem

ROUNDING = 1e-9
"""Share of a limit by which usage may lie above it: 0.1 and 0.2 are to meet a limit of 0.3, and their sum is above."""


def usage(problem: Problem, widths: Sequence[int]) -> dict[str, float]:
    """Resource -> what the net uses at widths, one a family. Raises ValueError for other widths than allowed."""
    if len(widths) != len(problem.ladders):
        raise ValueError(f"{len(widths)} widths for {len(problem.ladders)} families")
    for family, (ladder, width) in enumerate(zip(problem.ladders, widths)):
        if width not in ladder.widths:
            raise ValueError(f"family {family} is {width} wide; allowed are {ladder.widths}")
    found = {name: [problem.constants.get(name, 0.0)] for name in problem.charged()}
    for charge in problem.charges:
        inputs, outputs = np.array([charge.inputs.at(widths)]), np.array([charge.outputs.at(widths)])
        for name in charge.costs:
            found[name].append(float(charge.cost(name, inputs, outputs)[0]))
    peaks = {name: max(moment.at(widths) for moment in moments) for name, moments in problem.moments.items()}
    used = {name: math.fsum(costs) for name, costs in found.items()} | peaks
    return {name: used[name] for name in problem.resources}


def value(problem: Problem, widths: Sequence[int]) -> float:
    """The importance that stays at these widths."""
    return math.fsum(ladder.values[ladder.rung(width)] for ladder, width in zip(problem.ladders, widths))


def most(limit: float) -> float:
    """The largest usage that meets a limit."""
    return limit + ROUNDING * abs(limit)


def exceeds(used: float, limit: float) -> bool:
    """Is this more than the limit allows, by more than sums are rounded?"""
    return used > most(limit)
