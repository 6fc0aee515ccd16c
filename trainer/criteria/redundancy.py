"""A filter is worth its size, less what a larger filter of the same direction can stand in for.

    r[l, c] = max |cos(W_lc, W_lg)| over the filters g that are larger than c, if above tau, else 0
    s[l, c] = |W_lc|_2 * (1 - r[l, c])

g is of the same group as c: filters of other groups read other channels, and cannot stand in for it. Of two filters
that are exactly parallel, the smaller one, of equals the later one, scores zero.

Source: that redundant filters go is known of Khan et al., ICONIP 2022 (arXiv 2210.07451); cosine, threshold and the
product with the norm are reconstructions. At tau = 1 it would be the l2 norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..options import check_number
from .kernels import cosines, flat, group_by_group, group_count, producers
from .protocol import LooksAt
from .units import RELATIVE, Pooling, Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Redundancy:
    """The criterion; see the module docstring."""

    tau: float = 0.8
    pool: Pooling = RELATIVE
    name: str = "redundancy"

    def __post_init__(self) -> None:
        check_number(self.name, "tau", self.tau, high=1.0)

    @property
    def looks_at(self) -> LooksAt:
        """Weights alone."""
        return "weights"

    def score(self, net: Scored, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """One score per unit, higher = keep; images are not looked at.

        Returns (units,) float64 in the order of `channels.unit_labels`.
        """
        observed = []
        for name, axis, ids, array in producers(net):
            filters, groups = flat(array), group_count(net, name, axis)
            size = np.sqrt(np.square(filters).sum(1))
            share = group_by_group(lambda own: replaceable(own, self.tau), filters, groups)
            observed.append((ids, size * (1.0 - share)))
        return self.pool.over_units(net.channels, observed)


def replaceable(filters: NDArray[np.float64], tau: float) -> NDArray[np.float64]:
    """r of every filter: (C, K) -> (C,) in [0, 1]. Filters of a single weight are all parallel, and say nothing."""
    if filters.shape[1] < 2:
        return np.zeros(len(filters))
    order = np.argsort(-np.square(filters).sum(1), kind="stable")
    above = np.tril(cosines(filters[order]), -1).max(1)
    found = np.empty(len(filters))
    found[order] = np.where(above > tau, np.minimum(above, 1.0), 0.0)
    return found
