"""Which widths a family may have: multiples of the device's step, never below a minimum."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthLimits:
    """multiple: the step in which widths are useful. minimum: no width below it, itself rounded up to a multiple."""

    multiple: int = 8
    minimum: int = 8

    def round_up(self, width: float, whole: int) -> int:
        """The nearest allowed width at or above `width` of a family that is `whole` wide."""
        steps = -(-max(round(width, 9), self.minimum, 1) // self.multiple)
        return min(whole, int(steps) * self.multiple)

    def next_below(self, width: int) -> int | None:
        """The next narrower allowed width, None where there is none."""
        below = (width - 1) // self.multiple * self.multiple
        return below if below >= max(self.minimum, 1) else None
