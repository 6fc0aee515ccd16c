"""The latency of one part of a net as a function of how many channels it reads and writes.

    t(i, o) = (c0 + c1 i + c2 o + c3 i o) * r(i, o) * p(i, o)

The first factor, with coefficients from 0, is fitted to all points by relative error; r smooths what it leaves over,
by the points nearby: a kernel that changes its way of working at some width bends no part of the surface but that.
p is the share of the points nearby at which the part is there at all: conversions between layouts come and go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import DeviceError

try:
    from scipy.optimize import nnls
except ImportError as error:
    raise DeviceError(
        f"profiles of devices, and plans for them, need SciPy: {error}", "pip install 'edgeslim[profile]'"
    ) from error

Array = NDArray[np.float64]
_NUGGET = 2e-3
"""Squared distance, in shares of the widest, within which points are averaged: measurements err."""
_LEAST = 1e-6
"""Microseconds that no operator is faster than."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surface:
    """read, written: (points,) channels.  coefficients: (4,).  rest: (points,) logarithm of measured / fitted, 0 where
    the part is not there.  there: (points,) 1 where it is, 0 where not."""

    read: Array
    written: Array
    coefficients: Array
    rest: Array
    there: Array

    def at(self, read: Array, written: Array) -> Array:
        """Latencies in us where so many channels are read and written, arrays of one shape."""
        fitted = _features(read, written) @ self.coefficients
        distance = ((read[..., None] - self.read) / (self.read.max() + 1.0)) ** 2 + (
            (written[..., None] - self.written) / (self.written.max() + 1.0)
        ) ** 2
        weight = 1.0 / (distance + _NUGGET)
        near = weight * self.there
        rest = (near * self.rest).sum(-1) / np.maximum(near.sum(-1), 1e-12)
        return np.asarray(fitted * np.exp(rest) * near.sum(-1) / weight.sum(-1), np.float64)


def fit_surface(read: Array, written: Array, latency_us: Array) -> Surface:
    """Fit a surface to points, (points,) each. A part that some nets lack has latency 0 there."""
    there = latency_us > 0
    features, seen = _features(read, written), latency_us[there]
    coefficients, rest = np.zeros(features.shape[1]), np.zeros(len(latency_us))
    if there.any():
        scale = features.max(axis=0) + 1e-9
        solved, _ = nnls((features / scale)[there] / seen[:, None], np.ones(len(seen)))
        coefficients = solved / scale
        rest[there] = np.log(seen / np.maximum(features @ coefficients, _LEAST)[there])
    return Surface(read=read, written=written, coefficients=coefficients, rest=rest, there=there.astype(np.float64))


def _features(read: Array, written: Array) -> Array:
    return np.stack([np.ones_like(read), read, written, read * written], axis=-1)
