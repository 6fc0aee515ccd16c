"""L1 norm of a unit's producer kernels (Li et al. 2017), the baseline that every paper compares with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .units import Scored, mean_over_units


@dataclass(frozen=True, slots=True, kw_only=True)
class L1:
    """Mean |w| of the kernels that produce a unit, relative to their layer's mean."""

    name: str = "l1"

    def score(self, net: Scored, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """One score per unit, higher = keep; images are not looked at.

        Returns (units,) float64 in the order of `channels.unit_labels`.
        """
        weights = net.graph.graph.initializers
        observed = []
        for name, axes in net.channels.initializer_axes.items():
            value = weights[name].const_value
            if value is None or value.shape.rank() < 2:
                continue
            for index, axis in enumerate(axes):
                if axis is not None and (name, index) in net.channels.masked:
                    rest = tuple(i for i in range(value.shape.rank()) if i != index)
                    size = np.abs(value.numpy().astype(np.float64)).mean(axis=rest)
                    observed.append((net.channels.labels.find(axis.ids), size / max(float(size.mean()), 1e-30)))
        return mean_over_units(net.channels, observed)
