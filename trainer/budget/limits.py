"""Which widths a family may have: multiples of the device's step, never below a minimum.

Limits are given in channels. A unit may be more than one: in a grouped convolution, index j of every group. A family's
channels per unit are those of its narrowest producer; a wider one that goes along, such as a depthwise convolution
with a multiplier, then has a multiple of an allowed width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.channels.families import Family


def spare_one(channels: ChannelMap, cut: frozenset[int], scores: NDArray[np.float64]) -> frozenset[int]:
    """The cut without the highest score of every tensor that would be left with no channel, a piece of a Split for one.

    scores: (units,) in the order of `channels.unit_labels`.
    """
    value = dict(zip(channels.unit_labels.tolist(), scores.tolist()))
    kept = set(cut)
    for _, ids in channels.emptied(cut):
        if kept.issuperset(ids.tolist()):  # not spared for another tensor already
            kept.remove(max(ids.tolist(), key=lambda label: value[label]))
    return frozenset(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthLimits:
    """multiple: the step in which widths are useful. minimum: no width below it, itself rounded up to a multiple."""

    multiple: int = 8
    minimum: int = 8

    def in_units(self, family: Family, share: float = 0.0) -> WidthLimits:
        """The same limits, counted in units of this family, of which at least `share` stay."""
        each = min(len(place.indices) // family.width for place in family.places if place.masked)
        minimum = max(-(-self.minimum // each), math.ceil(share * family.width))
        return WidthLimits(multiple=self.multiple // math.gcd(self.multiple, each), minimum=minimum)

    def round_up(self, width: float, whole: int) -> int:
        """The nearest allowed width at or above `width` of a family that is `whole` wide."""
        steps = -(-max(round(width, 9), self.minimum, 1) // self.multiple)
        return min(whole, int(steps) * self.multiple)

    def next_below(self, width: int) -> int | None:
        """The next narrower allowed width, None where there is none."""
        below = (width - 1) // self.multiple * self.multiple
        return below if below >= max(self.minimum, 1) else None
