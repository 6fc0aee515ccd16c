"""The solver, HiGHS by way of SciPy: rows and an objective in, columns out. What they stand for is not known here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from edgeslim.errors import InvariantError

from .formulate import Formulation
from .silence import stray_lines_dropped

OPTIMAL, OUT_OF_TIME, INFEASIBLE = 0, 1, 2
"""What SciPy's `milp` says of how a search ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """coefficients @ columns <= most. coefficients: (columns,)"""

    coefficients: NDArray[np.float64]
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """columns: (columns,), None if there was no time to find any.  bound: no columns have a smaller objective."""

    columns: NDArray[np.float64] | None
    bound: float


def minimise(
    formulation: Formulation,
    objective: NDArray[np.float64],
    *,
    base: float,
    caps: Sequence[Cap],
    seconds: float,
    gap: float,
) -> Answer | None:
    """Columns with the smallest base + objective @ columns under all caps; None if no columns meet them.

    gap: the search ends when (what was found - bound) <= gap * abs(what was found), `base` included in both.
    """
    # SciPy has no way to give the solver a constant: a column that is always 1 is one.
    integer = np.zeros(formulation.columns + 1)
    for own in formulation.choices:
        integer[own.start : own.stop] = 1
    lowest = np.zeros(formulation.columns + 1)
    lowest[-1] = 1.0
    sums = sparse.hstack([formulation.equalities, sparse.csr_array((len(formulation.sums), 1))], format="csr")
    constraints = [optimize.LinearConstraint(sums, formulation.sums, formulation.sums)]
    if caps:
        rows = sparse.csr_array(np.stack([np.append(cap.coefficients, 0.0) for cap in caps]))
        constraints.append(optimize.LinearConstraint(rows, -np.inf, [cap.most for cap in caps]))
    with stray_lines_dropped():
        found = optimize.milp(
            np.append(objective, base),
            integrality=integer,
            bounds=optimize.Bounds(lowest, 1.0),
            constraints=constraints,
            options={"time_limit": seconds, "mip_rel_gap": gap},
        )
    if found.status == INFEASIBLE:
        return None
    if found.status not in (OPTIMAL, OUT_OF_TIME):
        raise InvariantError(f"the solver ended in a way that this problem does not allow: {found.message}")
    if found.x is None:
        return Answer(columns=None, bound=-math.inf)
    bound = found.fun if found.mip_dual_bound is None else found.mip_dual_bound
    return Answer(columns=found.x[:-1], bound=float(bound))
