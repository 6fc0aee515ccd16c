"""A score by chance: what every other criterion must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..options import check_count
from .protocol import LooksAt
from .units import ABSOLUTE, Pooling, Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Uniform in [0, 1), the same for the same seed in every round."""

    seed: int = 0
    pool: Pooling = ABSOLUTE
    name: str = "random"

    def __post_init__(self) -> None:
        check_count(self.name, "seed", self.seed, low=0)

    @property
    def looks_at(self) -> LooksAt:
        """Nothing, which weights are nearest to."""
        return "weights"

    def score(self, net: Scored, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """One score per unit, higher = keep; images are not looked at.

        Returns (units,) float64 in the order of `channels.unit_labels`.
        """
        labels = net.channels.unit_labels
        return self.pool.over_units(net.channels, [(labels, np.random.default_rng(self.seed).random(len(labels)))])
