"""What the programme answers, and whether an answer is true."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgeslim.errors import InvariantError

from .problem import Problem
from .usage import exceeds, usage, value


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Widths that meet all limits, one a family, with the importance they keep and all that they use.

    gap: by how much any other widths may at most be better, as a share of what is at stake: the importance that the
    widest net keeps beyond the narrowest.  proven: the gap is no larger than was asked for.
    """

    widths: tuple[int, ...]
    value: float
    usage: Mapping[str, float]
    gap: float
    proven: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Least:
    """The least that a net can use of one resource, whatever it uses of others.

    used: what it uses at `widths`.  bound: no widths use less than this; equal to `used` but for the search's gap.
    """

    widths: tuple[int, ...]
    used: float
    bound: float


def at_stake(problem: Problem) -> float:
    """The importance that the widest net keeps beyond the narrowest."""
    return math.fsum(share for ladder in problem.ladders for share in (ladder.values[-1], -ladder.values[0]))


def check_solution(problem: Problem, solution: Solution) -> None:
    """Count everything again. Raises InvariantError if the solution breaks a limit or misstates itself."""
    try:
        used, kept = usage(problem, solution.widths), value(problem, solution.widths)
    except ValueError as error:
        raise InvariantError(f"the widths {solution.widths} are none of this problem: {error}") from error
    if dict(solution.usage) != used:
        wrong = {name: (solution.usage.get(name), used.get(name)) for name in {*used, *solution.usage}}
        wrong = {name: pair for name, pair in sorted(wrong.items()) if pair[0] != pair[1]}
        raise InvariantError(f"the widths {solution.widths} do not use what the solution says (said, counted): {wrong}")
    if solution.value != kept:
        raise InvariantError(
            f"the widths {solution.widths} keep {kept} of importance; the solution says {solution.value}"
        )
    over = {name: (used[name], limit) for name, limit in problem.limits.items() if exceeds(used[name], limit)}
    if over:
        raise InvariantError(f"the widths {solution.widths} break limits (used, allowed): {over}")
    if not 0.0 <= solution.gap <= 1.0:
        raise InvariantError(f"the gap of a solution is {solution.gap}; it is a share of what is at stake")
