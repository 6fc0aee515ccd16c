"""L2 norm of a unit's producer kernels: a few large weights count for more than in `l1`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .kernels import flat, producers
from .protocol import LooksAt
from .units import RELATIVE, Pooling, Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class L2:
    """Root mean square of the kernels that produce a unit, relative to their layer's mean."""

    pool: Pooling = RELATIVE
    name: str = "l2"

    @property
    def looks_at(self) -> LooksAt:
        """Weights alone."""
        return "weights"

    def score(self, net: Scored, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """One score per unit, higher = keep; images are not looked at.

        Returns (units,) float64 in the order of `channels.unit_labels`.
        """
        observed = [(ids, np.sqrt(np.square(flat(w)).mean(1))) for _, _, ids, w in producers(net)]
        return self.pool.over_units(net.channels, observed)
