"""What arrives where channels are read: measured on a few inputs, position by position.

The graph runs with every summed operand as an additional output. A position counts as constant if it has one value
over batch, space, and all inputs, up to what vectorised activations differ by from lane to lane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..foreign.feeds import Arrays, open_session, run_session
from ..taps import tapped

SPREAD = 1e-6
"""Largest difference of a constant from itself, as a share of its size."""


def measure(
    model: ir.Model, places: Sequence[tuple[str, int]], inputs: Sequence[Arrays]
) -> Mapping[tuple[str, int], NDArray[np.float64]]:
    """(value, axis) -> (n,) the constant at each index of the axis, NaN where it is none.

    inputs: what to run the graph on, each a full set of graph inputs; at least two of them.
    Raises ExportError where ONNX Runtime refuses the graph, or cannot run it on one of them.
    """
    names = list(dict.fromkeys(name for name, _ in places))
    what = "the graph with its inner values as outputs"
    session = open_session(tapped(model, names), what)
    lowest: dict[tuple[str, int], NDArray[np.float64]] = {}
    highest: dict[tuple[str, int], NDArray[np.float64]] = {}
    for given in inputs:
        arrays = dict(zip(names, run_session(session, names, given, what)))
        for place in places:
            array = arrays[place[0]]
            rest = tuple(i for i in range(array.ndim) if i != place[1] % array.ndim)
            low, high = array.min(axis=rest).astype(np.float64), array.max(axis=rest).astype(np.float64)
            if place in lowest and lowest[place].shape == low.shape:
                low, high = np.minimum(low, lowest[place]), np.maximum(high, highest[place])
            elif place in lowest:  # the axis itself grows with the image
                low, high = np.full_like(low, np.nan), np.full_like(low, np.nan)
            lowest[place], highest[place] = low, high
    return {place: _constants(lowest[place], highest[place]) for place in places}


def _constants(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        steady = high - low <= SPREAD * np.maximum(np.abs(high), np.abs(low))
    middle = np.where(low == high, low, low / 2 + high / 2)
    return np.asarray(np.where(steady & np.isfinite(middle), middle, np.nan), np.float64)
