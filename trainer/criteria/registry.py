"""All criteria by name."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import ConfigError

from .l1 import L1
from .ln_norm import LnNorm
from .reconstruction import Reconstruction
from .units import Scored


class Criterion(Protocol):
    """How much each unit matters."""

    @property
    def name(self) -> str:
        """How a recipe calls it."""
        ...

    def score(self, net: Scored, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """One score per unit, higher = keep.

        images: (N, C, H, W) float32, normalised. Returns (units,) float64 in the order of `channels.unit_labels`.
        """
        ...


CRITERIA: dict[str, Criterion] = {"l1": L1(), "ln_norm": LnNorm(), "reconstruction": Reconstruction()}


def criterion(name: str) -> Criterion:
    """The criterion of this name. Raises ConfigError for an unknown one."""
    if not isinstance(name, str) or name not in CRITERIA:
        raise ConfigError(f"criterion {name!r} is unknown", f"choose one of {', '.join(CRITERIA)}")
    return CRITERIA[name]
