"""A budget of multiply-accumulates over all families.

Greedy: of all families' next narrower useful widths, take the step that loses the least score per MAC saved, until
the budget is met. No family falls below `min_share` of its width: scores are of the net as it is, and say little about
what a layer can do without once most of it is gone. A step's MACs are counted exactly, with every consumer that
narrows along:

    saved = sum_w positions[w] * (prod_a size[w, a] - prod_a (size[w, a] - taken[w, a]))

over the weights w that the family has slices of. What a family takes changes only when it takes a step; what that
saves also changes when another one narrows the same weights, so it is counted anew for all of them at once.

Where scores lie below zero, as standard scores do, all are lifted by the same until the lowest is zero: of negative
losses per MAC the smallest would be that of the family that saves the fewest MACs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import BudgetError
from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.channels.families import Family
from edgeslim.exporter.cost import LayerCost

from .limits import WidthLimits
from .reached import Reached

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Macs:
    """Keep the share `keep` of the dense net's MACs.

    costs: positions of every layer, see exporter.cost.  min_share: of every family's width, that stays anyway.
    """

    keep: float
    costs: Sequence[LayerCost]
    limits: WidthLimits
    min_share: float = 0.0

    @property
    def reached(self) -> Reached | None:
        """No device is asked."""
        return None

    def select(self, channels: ChannelMap, scores: NDArray[np.float64], share: float = 1.0) -> frozenset[int]:
        """Labels of the units to cut when `share` in (0, 1] of the way to the budget is to be gone.

        scores: (units,) in the order of `channels.unit_labels`; a unit of infinite score stays.
        Raises BudgetError if the narrowest allowed net still needs more.
        """
        weights = _Weights.of(channels, self.costs)
        scores = scores - scores[np.isfinite(scores)].min(initial=0.0)
        ends = np.cumsum([family.width for family in channels.families])
        ladders = [
            _Ladder(family, own, self.limits.in_units(family, self.min_share), weights)
            for family, own in zip(channels.families, np.split(scores, ends[:-1]))
        ]
        steps = _Steps(ladders, weights)
        dense = now = weights.macs()
        target = self.keep**share * dense
        while now > target:
            best = steps.cheapest()
            if best is None and not ladders:
                raise BudgetError(
                    f"{self.keep:.3g} of the dense net's MACs cannot be reached: no channel of this net can be pruned",
                    "the coverage says of every layer why",
                )
            if best is None:
                raise BudgetError(
                    f"{self.keep:.3g} of the dense net's MACs cannot be reached: with every family at its narrowest "
                    f"allowed width {now / dense:.3g} of them are left",
                    f"ask for more than {now / dense:.3g} (budget.keep, target), or allow narrower widths "
                    "(min_share, min_width, width_multiple)",
                )
            steps.take(best)
            now = weights.macs()
        return frozenset(label for ladder in ladders for label in ladder.cut.tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weights:
    """The weights that do the work. rows: initializer -> row; positions: (rows,); sizes: (rows, axes), as of now."""

    rows: Mapping[str, int]
    positions: Counts
    sizes: Counts

    @classmethod
    def of(cls, channels: ChannelMap, costs: Sequence[LayerCost]) -> _Weights:
        rows = {name: row for row, name in enumerate(dict.fromkeys(cost.weight for cost in costs))}
        shapes = [channels.model.graph.initializers[name].shape for name in rows]
        dims = [() if shape is None else shape.numpy() for shape in shapes]
        sizes = np.ones((len(rows), max(map(len, dims), default=0)), np.int64)
        for row, dim in enumerate(dims):
            sizes[row, : len(dim)] = dim
        positions = np.zeros(len(rows), np.int64)
        for cost in costs:
            positions[rows[cost.weight]] += cost.positions
        return cls(rows=rows, positions=positions, sizes=sizes)

    def macs(self) -> int:
        """Of one input, at the sizes of now."""
        return int(self.positions @ self.sizes.prod(axis=1))


class _Ladder:
    """One family on its way down: its units, lowest score first, and the step that comes next."""

    def __init__(self, family: Family, scores: NDArray[np.float64], limits: WidthLimits, weights: _Weights) -> None:
        places = [place for place in family.places if place.initializer in weights.rows]
        bounded = np.maximum(scores, -1e12)  # what is gone already: very low
        order = np.argsort(bounded, kind="stable")
        self._labels, self._scores, self._limits = family.labels[order], bounded[order], limits
        self._width = family.width
        self.rows, self._row = np.unique(
            np.array([weights.rows[place.initializer] for place in places], np.int64), return_inverse=True
        )
        self._axis = np.array([place.axis for place in places], np.int64)
        self._axes = weights.sizes.shape[1]
        # (places, units + 1): how many indices of a place the lowest units have together.
        self._taken = np.zeros((len(places), family.width + 1), np.int64)
        for taken, place in zip(self._taken, places):
            np.cumsum(np.bincount(place.owners, minlength=family.width)[order], out=taken[1:])

    @property
    def cut(self) -> NDArray[np.int64]:
        """The labels that have left."""
        return self._labels[: len(self._labels) - self._width]

    def lost(self) -> float:
        """The score that the next step loses; infinite where there is none, or what nobody could score would leave."""
        start, stop = self._next()
        return float(self._scores[start:stop].sum()) if stop > start else np.inf

    def taken(self) -> Counts:
        """(rows, axes) indices that the next step takes."""
        start, stop = self._next()
        taken = np.zeros((len(self.rows), self._axes), np.int64)
        np.add.at(taken, (self._row, self._axis), self._taken[:, stop] - self._taken[:, start])
        return taken

    def descend(self) -> None:
        """Take the next step."""
        self._width = len(self._labels) - self._next()[1]

    def _next(self) -> tuple[int, int]:
        """Which of the sorted units the next step takes."""
        start = len(self._labels) - self._width
        width = self._limits.next_below(self._width)
        return start, start if width is None else len(self._labels) - width


class _Steps:
    """The next step of every family, side by side."""

    def __init__(self, ladders: Sequence[_Ladder], weights: _Weights) -> None:
        self._ladders, self._weights = ladders, weights
        none = np.empty(0, np.int64)
        self._rows = np.concatenate([none, *(ladder.rows for ladder in ladders)])
        self._bounds = np.cumsum([0, *(len(ladder.rows) for ladder in ladders)])
        self._lost = np.array([ladder.lost() for ladder in ladders])
        self._taken = np.concatenate([weights.sizes[:0], *(ladder.taken() for ladder in ladders)])

    def cheapest(self) -> int | None:
        """The family whose next step loses the least score per MAC; None where no step saves any."""
        wide = self._weights.sizes[self._rows]
        saved = self._weights.positions[self._rows] * (wide.prod(axis=1) - (wide - self._taken).prod(axis=1))
        totals = np.diff(np.concatenate([[0], np.cumsum(saved)])[self._bounds])
        useful = np.flatnonzero((totals > 0) & (self._lost < np.inf))
        return int(useful[np.argmin(self._lost[useful] / totals[useful])]) if len(useful) else None

    def take(self, index: int) -> None:
        """Let this family take its step."""
        ladder, own = self._ladders[index], slice(self._bounds[index], self._bounds[index + 1])
        self._weights.sizes[ladder.rows] -= self._taken[own]
        ladder.descend()
        self._lost[index], self._taken[own] = ladder.lost(), ladder.taken()
