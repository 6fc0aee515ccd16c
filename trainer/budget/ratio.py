"""The plainest budget: the same fraction of every family."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap

from .limits import WidthLimits
from .reached import Reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Cut `ratio` of every family's units, the lowest scores first, kept widths rounded up."""

    ratio: float
    limits: WidthLimits

    @property
    def reached(self) -> Reached | None:
        """No device is asked."""
        return None

    def select(self, channels: ChannelMap, scores: NDArray[np.float64], share: float = 1.0) -> frozenset[int]:
        """Labels of the units to cut when `share` in (0, 1] of the way to the budget is to be gone.

        scores: (units,) in the order of `channels.unit_labels`.
        """
        keep = (1.0 - self.ratio) ** share
        cut: set[int] = set()
        start = 0
        for family in channels.families:
            own = scores[start : start + family.width]
            start += family.width
            kept = self.limits.in_units(family).round_up(keep * family.width, family.width)
            kept = max(kept, int(np.isposinf(own).sum()))  # what nobody could score stays
            lowest = np.argsort(own, kind="stable")[: family.width - kept]
            cut.update(family.labels[lowest].tolist())
        return frozenset(cut)
