"""A cost that was measured: a number for each of the totals that were asked for, and none for others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .problem import Costs, Counts


class CostTable:
    """costs[i, j] is the cost of inputs[i] -> outputs[j] channels. Of a layer without inputs, inputs is (0,).

    costs: (inputs, outputs) float64; both axes ascending. Other totals raise ValueError: nothing is interpolated.
    """

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int], costs: Costs) -> None:
        self._axes = np.array(inputs, np.int64), np.array(outputs, np.int64)
        self._costs = np.array(costs, np.float64)
        if any(len(axis) == 0 or (np.diff(axis) <= 0).any() for axis in self._axes):
            raise ValueError(f"a table of costs over {list(inputs)} and {list(outputs)}; both must ascend")
        if self._costs.shape != (len(inputs), len(outputs)):
            raise ValueError(f"{self._costs.shape} costs for {len(inputs)} inputs and {len(outputs)} outputs")

    def __call__(self, inputs: Counts, outputs: Counts, /) -> Costs:
        """Look up pairs of totals, in their shape."""
        places = []
        for axis, totals in zip(self._axes, (inputs, outputs)):
            place = np.minimum(np.searchsorted(axis, totals), len(axis) - 1)
            missing = np.setdiff1d(totals, axis)
            if len(missing):
                raise ValueError(f"no cost is known for {missing.tolist()} channels; known are {axis.tolist()}")
            places.append(place)
        return np.asarray(self._costs[places[0], places[1]], np.float64)
