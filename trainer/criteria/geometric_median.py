"""Filters near the geometric median of their layer are the ones that the others can replace.

    s[l, c] = mean over g of |W_lc - W_lg|_2

over the filters g that read the same channels, those of one group: depthwise layers, in which each filter is alone, say
nothing. Not small filters go, but those in the middle of all.

Source: FPGM, He et al., CVPR 2019, arXiv 1811.00250; the sum over g there, a mean here. Groups, and for channels that
live and die together the mean over their layers, are this project's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .kernels import flat, group_by_group, group_count, producers
from .protocol import LooksAt
from .units import RELATIVE, Pooling, Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometricMedian:
    """The criterion; see the module docstring."""

    pool: Pooling = RELATIVE
    name: str = "geometric_median"

    @property
    def looks_at(self) -> LooksAt:
        """Weights alone."""
        return "weights"

    def score(self, net: Scored, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """One score per unit, higher = keep; images are not looked at.

        Returns (units,) float64 in the order of `channels.unit_labels`.
        """
        observed = []
        for name, axis, ids, weights in producers(net):
            groups = group_count(net, name, axis)
            if groups < len(weights):
                observed.append((ids, group_by_group(mean_distances, flat(weights), groups)))
        return self.pool.over_units(net.channels, observed)


def mean_distances(filters: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean distance of every filter to all filters: (C, K) -> (C,)."""
    sizes = np.square(filters).sum(1)
    squares = sizes[:, None] + sizes - 2 * filters @ filters.T
    np.fill_diagonal(squares, 0.0)
    # What is left of two equal filters is rounding: below it there is no distance.
    squares[squares < 1e-12 * (sizes[:, None] + sizes)] = 0.0
    return np.asarray(np.sqrt(squares).mean(1))
