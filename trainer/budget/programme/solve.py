"""The widths that keep the most importance within all limits, by mixed-integer linear programming (HiGHS).

    maximise    sum_f values[f][rung]        subject to usage[r] <= limits[r] for all r

The rows are those of `formulate.py`, each resource's divided by its largest coefficient and importance counted in
thousandths of what is at stake, so that microseconds, MACs and bytes are all of a size to which the solver's absolute
tolerances (1e-6 and less) mean nothing. What it answers is counted again from the problem itself. Where it made use of a
tolerance to step over a limit, it is asked once more, the limits a tolerance tighter.

*At stake* is what the widest net keeps beyond the narrowest: shares of it mean the same whatever scores are counted in,
and however much of them must stay anyway. Gaps are such shares.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from edgeslim.errors import BudgetError, InvariantError

from .formulate import Formulation, Row, formulate
from .problem import Problem
from .usage import exceeds, usage, value

SCALE = 1000.0
"""What is at stake, in the solver's units."""
TOLERANCE = 1e-6
"""By how much a row may be broken, in the solver's own terms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Widths, one a family, with what they keep and use.

    gap: by how much other widths might at most be better, as a share of what is at stake.  proven: that is what was asked.
    """

    widths: tuple[int, ...]
    value: float
    usage: Mapping[str, float]
    gap: float
    proven: bool


def solve(problem: Problem, *, seconds: float = 5.0, gap: float = 1e-3) -> Solution:
    limited = sorted(name for name, limit in problem.limits.items() if limit < math.inf)
    formulation = formulate(problem, limited)
    stake = sum(l.values[-1] - l.values[0] for l in problem.ladders)
    objective = np.zeros(formulation.columns)
    for ladder, own in zip(problem.ladders, formulation.choices):
        if own:
            objective[own.start : own.stop] = -(np.array(ladder.values) - ladder.values[0]) * (SCALE / (stake or 1.0))
    A, ub = [], []
    for name in limited:
        for row in formulation.usage[name]:
            s = np.abs(row.coefficients).max() or 1.0
            A.append(row.coefficients / s)
            ub.append((problem.limits[name] - row.offset) / s)
    integ = np.zeros(formulation.columns)
    for own in formulation.choices:
        integ[own.start : own.stop] = 1
    cons = [optimize.LinearConstraint(formulation.equalities, formulation.sums, formulation.sums)]
    if A:
        cons.append(optimize.LinearConstraint(sparse.csr_array(np.array(A)), -np.inf, np.array(ub)))
    import os
    res = optimize.milp(objective, integrality=integ, bounds=optimize.Bounds(0, 1), constraints=cons,
                        options={"time_limit": seconds, "mip_rel_gap": gap, "disp": bool(os.environ.get("DISP"))})
    if res.x is None:
        raise BudgetError(f"{res.status} {res.message}")
    widths = tuple(l.widths[int(np.argmax(res.x[o.start:o.stop]))] if o else l.widths[0] for l, o in zip(problem.ladders, formulation.choices))
    return Solution(widths=widths, value=value(problem, widths), usage=usage(problem, widths), gap=res.mip_gap, proven=res.status == 0)
