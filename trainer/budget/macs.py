"""A budget of multiply-accumulates over all families.

Greedy: of all families' next narrower useful widths, take the step that loses the least score per MAC saved, until
the budget is met. A step's MACs are counted exactly, with every consumer that narrows along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import BudgetError
from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.channels.families import Family, Unit
from edgeslim.exporter.cost import LayerCost

from .limits import WidthLimits

Place = tuple[str, int]
"""(initializer, axis)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Macs:
    """Keep the share `keep` of the dense net's MACs. costs: positions of every layer, see exporter.cost."""

    keep: float
    costs: Sequence[LayerCost]
    limits: WidthLimits

    def select(self, channels: ChannelMap, scores: NDArray[np.float64], share: float = 1.0) -> frozenset[int]:
        """Labels of the units to cut when `share` in (0, 1] of the way to the budget is to be gone.

        scores: (units,) in the order of `channels.unit_labels`; a unit of infinite score stays.
        Raises BudgetError if the narrowest allowed net still needs more.
        """
        sizes = {name: list(v.shape.numpy()) for name, v in channels.model.graph.initializers.items() if v.shape}
        dense = self._count(sizes)
        target = self.keep**share * dense
        ranked = _ranked(channels, scores)
        widths = [family.width for family in channels.families]
        limits = [self.limits.in_units(family) for family in channels.families]
        while (now := self._count(sizes)) > target:
            best: tuple[float, int, int] | None = None
            for index, family in enumerate(channels.families):
                width = limits[index].next_below(widths[index])
                if width is None:
                    continue
                lost = float(ranked[index][1][family.width - widths[index] : family.width - width].sum())
                if np.isposinf(lost):  # what nobody could score stays
                    continue
                leaving = _between(family, ranked[index][0], widths[index], width)
                saved = now - self._count(_narrowed(sizes, leaving))
                if saved > 0 and (best is None or lost / saved < best[0]):
                    best = (lost / saved, index, width)
            if best is None:
                raise BudgetError(
                    f"{self.keep:.3g} of the dense net's MACs cannot be reached: with every family at its narrowest "
                    f"allowed width {now / dense:.3g} of them are left",
                    f"ask for more than {now / dense:.3g} (budget.keep, target), or allow narrower widths "
                    "(min_width, width_multiple)",
                )
            _, index, width = best
            leaving = _between(channels.families[index], ranked[index][0], widths[index], width)
            sizes = _narrowed(sizes, leaving)
            widths[index] = width
        return frozenset(
            family.units[i].label
            for family, width, (order, _) in zip(channels.families, widths, ranked)
            for i in order[: family.width - width].tolist()
        )

    def _count(self, sizes: dict[str, list[int]]) -> int:
        return sum(cost.positions * int(np.prod(sizes[cost.weight])) for cost in self.costs)


def _ranked(channels: ChannelMap, scores: NDArray[np.float64]) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Per family the positions of its units, lowest score first, and those scores (what is gone already: very low)."""
    bounded = np.maximum(scores, -1e12)
    ranked, start = [], 0
    for family in channels.families:
        own = bounded[start : start + family.width]
        start += family.width
        order = np.argsort(own, kind="stable")
        ranked.append((order, own[order]))
    return ranked


def _between(family: Family, order: NDArray[np.int64], width: int, narrower: int) -> list[Unit]:
    """The units that leave a family when it goes from `width` to `narrower`."""
    return [family.units[i] for i in order[family.width - width : family.width - narrower].tolist()]


def _narrowed(sizes: dict[str, list[int]], leaving: Sequence[Unit]) -> dict[str, list[int]]:
    """The shapes of all initializers without these units."""
    changed = dict(sizes)
    for unit in leaving:
        for member in unit.members:
            if changed[member.initializer] is sizes[member.initializer]:
                changed[member.initializer] = list(sizes[member.initializer])
            changed[member.initializer][member.axis] -= len(member.indices)
    return changed
