"""What activations are like: their ends, and how their absolute values are spread.

Two passes over the images: the ends first, then `bins` equal bins from 0 to the largest absolute value. With bins that
are fixed by the first image, and widened when a later one goes beyond, what is chosen would depend on the order of
the images. A histogram is a few kilobytes, however many images there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..calibration import Calibration
from ..observe import observe


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """low, high: the ends. counts: (bins,) int64 of absolute values in equal bins from 0 to `largest`."""

    low: float
    high: float
    counts: NDArray[np.int64]

    @property
    def largest(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))

    @property
    def width(self) -> float:
        """Of a bin."""
        return self.largest / len(self.counts)


def measure_histograms(
    model: ir.Model, names: Sequence[str], calibration: Calibration, bins: int
) -> dict[str, Histogram]:
    """A histogram of each of these values over all images. Raises DataError as `observe` does."""
    ends: dict[str, tuple[float, float]] = {}
    for name, array in observe(model, names, calibration):
        if array.size:
            low, high = ends.get(name, (np.inf, -np.inf))
            ends[name] = (min(low, float(array.min())), max(high, float(array.max())))
    counts = {name: np.zeros(bins, np.int64) for name in names}
    largest = {name: max(abs(low), abs(high)) for name, (low, high) in ends.items()}
    for name, array in observe(model, names, calibration):
        if largest.get(name, 0.0) > 0:
            counts[name] += count_absolute(array, largest[name], bins)
    return {
        n: Histogram(low=ends.get(n, (0.0, 0.0))[0], high=ends.get(n, (0.0, 0.0))[1], counts=counts[n]) for n in names
    }


def count_absolute(array: NDArray[np.generic], largest: float, bins: int) -> NDArray[np.int64]:
    """(bins,) how many absolute values lie in each of the equal bins from 0 to `largest`, the last one closed."""
    # Divided by the largest first: bins / largest is no float32 where all values are tiny.
    shares = np.abs(array.ravel().astype(np.float32)) / np.float32(largest)
    places = (shares * np.float32(bins)).astype(np.int64)
    return np.bincount(np.minimum(places, bins - 1), minlength=bins).astype(np.int64)
