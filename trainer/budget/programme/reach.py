"""What can be reached at all: the least of one resource, and what to say when limits ask for less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import BudgetError

from .formulate import Formulation, formulate
from .highs import minimise
from .problem import Problem
from .solution import Least
from .usage import exceeds, usage


class OutOfReach(BudgetError):
    """No allowed widths meet all limits. least: the least that can be used of every limited resource."""

    def __init__(self, message: str, hint: str, least: Mapping[str, Least]) -> None:
        super().__init__(message, hint)
        self.least = least


def least(problem: Problem, resource: str, *, seconds: float = 5.0, gap: float = 1e-6) -> Least:
    """The least that can be used of a resource when nothing else counts; that is not always at the narrowest widths.

    gap: how far the bound may lie below, as a share of what is used. Raises BudgetError if nothing was found in time.
    """
    if resource not in problem.resources:
        raise ValueError(f"there is no {resource}; there are {', '.join(problem.resources)}")
    if resource in problem.moments:  # no moment grows when a family narrows
        widths = tuple(ladder.widths[0] for ladder in problem.ladders)
        used = usage(problem, widths)[resource]
        return Least(widths=widths, used=used, bound=used)
    formulation = formulate(problem, [resource])
    (row,) = formulation.usage[resource]
    scale = largest(row.coefficients)
    answer = minimise(formulation, row.coefficients / scale, base=row.offset / scale, caps=(), seconds=seconds, gap=gap)
    if answer is None or answer.columns is None:
        raise BudgetError(
            f"the least {resource} of any widths was not found within {seconds:g} s", "give the search more time"
        )
    widths = chosen(problem, formulation, answer.columns)
    used = usage(problem, widths)[resource]
    return Least(widths=widths, used=used, bound=min(used, answer.bound * scale))


def out_of_reach(problem: Problem, resources: Sequence[str], seconds: float) -> OutOfReach:
    """Why these resources' limits cannot all be met."""
    leasts = {name: least(problem, name, seconds=seconds) for name in resources}
    missed = [name for name in resources if exceeds(leasts[name].bound, problem.limits[name])]
    if missed:
        said = "; ".join(
            f"{name} of {problem.limits[name]:.6g} is asked for, no widths need less than {leasts[name].bound:.6g}"
            for name in missed
        )
        hint = "allow more of it, or narrower widths"
    else:
        said = "; ".join(f"{name} {problem.limits[name]:.6g} (least {leasts[name].used:.6g})" for name in resources)
        said = f"no widths meet all limits together, though some meet each: {said}"
        hint = "allow more of one of them, or narrower widths"
    return OutOfReach(said, hint, leasts)


def chosen(problem: Problem, formulation: Formulation, columns: NDArray[np.float64]) -> tuple[int, ...]:
    """The widths that a solver's columns stand for."""
    rungs = (int(columns[own.start : own.stop].argmax()) if own else 0 for own in formulation.choices)
    return tuple(ladder.widths[rung] for ladder, rung in zip(problem.ladders, rungs))


def largest(coefficients: NDArray[np.float64]) -> float:
    """What to divide a row by: its largest coefficient, 1 where it has none."""
    return float(np.abs(coefficients).max(initial=0.0)) or 1.0
