"""The latency of one part of a net as a function of how many channels it reads and writes.

    t(i, o) = (c0 + c1 i + c2 o + c3 i o) * r(i, o)

The first factor, with coefficients from 0, is fitted to all points by relative error; r smooths what it leaves over,
by the points nearby: a kernel that changes its way of working at some width bends no part of the surface but that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]
_NUGGET = 2e-3
"""Squared distance, in shares of the widest, within which points are averaged: measurements err."""
_FLOOR = 0.02
"""Of the mean latency: below this, errors count as if the latency were this."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surface:
    """read, written: (points,) channels.  coefficients: (4,).  rest: (points,) logarithm of measured / fitted."""

    read: Array
    written: Array
    coefficients: Array
    rest: Array

    def at(self, read: Array, written: Array) -> Array:
        """Latencies in us where so many channels are read and written, arrays of one shape."""
        fitted = _features(read, written) @ self.coefficients
        distance = ((read[..., None] - self.read) / (self.read.max() + 1.0)) ** 2 + (
            (written[..., None] - self.written) / (self.written.max() + 1.0)
        ) ** 2
        weight = 1.0 / (distance + _NUGGET)
        return np.asarray(fitted * np.exp((weight * self.rest).sum(-1) / weight.sum(-1)), np.float64)


def fit_surface(read: Array, written: Array, latency_us: Array) -> Surface:
    """Fit a surface to points, (points,) each. A part that some nets lack has latency 0 there."""
    features = _features(read, written)
    scale = features.max(axis=0) + 1e-9
    least = max(_FLOOR * float(latency_us.mean()), 1e-6)
    weight = 1.0 / np.maximum(latency_us, least)
    solved, _ = nnls(features / scale * weight[:, None], latency_us * weight)
    coefficients = solved / scale
    rest = np.log(np.maximum(latency_us, least) / np.maximum(features @ coefficients, least))
    return Surface(read=read, written=written, coefficients=coefficients, rest=rest)


def _features(read: Array, written: Array) -> Array:
    return np.stack([np.ones_like(read), read, written, read * written], axis=-1)
