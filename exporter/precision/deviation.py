"""How far a variant is from its float32 net, on real frames.

max_abs = max |a - b|        relative_rms = ||a - b|| / ||b||        b: float32, over all images together
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.errors import DataError, ExportError

from .calibration import Calibration
from .simulate import Outputs, simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDeviation:
    """Of one output. largest: max |b|, to hold max_abs against. NaN or infinity in either makes both infinite."""

    output: str
    max_abs: float
    relative_rms: float
    largest: float


def measure_deviation(
    reference: ir.Model, variant: ir.Model, frames: Calibration, run: Outputs | None = None
) -> tuple[OutputDeviation, ...]:
    """Compare all outputs, by name. run: the variant on its engine, giving its outputs in the order of `reference`'s.

    Raises ExportError where the variant has other outputs, DataError where there are no frames.
    """
    names = [v.name or "" for v in reference.graph.outputs]
    theirs = {v.name for v in variant.graph.outputs}
    if set(names) != theirs:
        raise ExportError(f"the variant has the outputs {sorted(map(str, theirs))}, the float32 net {sorted(names)}")
    if not frames.feeds:
        raise DataError("there are no frames to compare on", "give at least one")
    wanted, seen = simulate(reference), run or simulate(variant, names)
    sums = [Difference() for _ in names]
    for feed in frames.feeds:
        for total, a, b in zip(sums, seen(feed), wanted(feed), strict=True):
            total.add(a, b)
    return tuple(
        OutputDeviation(output=name, max_abs=s.max_abs, relative_rms=s.relative_rms, largest=s.largest)
        for name, s in zip(names, sums)
    )


class Difference:
    """Differences between two values, summed over images."""

    def __init__(self) -> None:
        self.max_abs = self.largest = 0.0
        self._gone = self._energy = 0.0

    def add(self, seen: NDArray[np.generic], wanted: NDArray[np.generic]) -> None:
        """Take in one image. Shapes that differ, or numbers that are none, make the difference infinite."""
        a, b = seen.astype(np.float64), wanted.astype(np.float64)
        if seen.shape != wanted.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
            self.max_abs = self._gone = float("inf")
            return
        self.largest = max(self.largest, float(np.abs(b).max(initial=0.0)))
        self._energy += float(np.square(b).sum())
        gone = a - b
        self.max_abs = max(self.max_abs, float(np.abs(gone).max(initial=0.0)))
        self._gone += float(np.square(gone).sum())

    @property
    def relative_rms(self) -> float:
        """||a - b|| / ||b||; where b is 0 throughout, 0 if a is too, else infinite."""
        if self._energy == 0:
            return 0.0 if self._gone == 0 else float("inf")
        return float(np.sqrt(self._gone / self._energy))
