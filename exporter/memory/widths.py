"""Sizes as functions of the families' widths, so that a planner needs no graph to ask what a plan would take.

A tensor's size is a product over its axes, and the length of an axis is affine in the widths:

    size(w) = scale * prod_axes (fixed[axis] + sum_f per_unit[axis, f] * w[f])

per_unit counts how many indices of the axis one unit of the family has. It is a mean, exact for every choice of units
where all of them have as many, as all have in nearly every net.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..channels import ChannelMap
from ..channels.labels import Ids

Widths = NDArray[np.int64]
"""(families,): the width of every family, in the order of `ChannelMap.families`."""
Amounts = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisTerms:
    """The length of one axis: fixed + per_unit @ widths. per_unit: (families,) float64."""

    fixed: float
    per_unit: Amounts

    def length(self, widths: Sequence[int]) -> float:
        """How long the axis is when the families have these widths."""
        return self.fixed + float(self.per_unit @ np.asarray(widths, np.float64))

    @property
    def varies(self) -> bool:
        """Whether any plan changes it."""
        return bool(self.per_unit.any())


class FamilyIndex:
    """Which family every label belongs to."""

    def __init__(self, channels: ChannelMap) -> None:
        self.names = tuple(family.name for family in channels.families)
        self.widths: Widths = np.array([family.width for family in channels.families], np.int64)
        self._labels = channels.labels
        self._family = np.full(len(channels.labels), -1, np.int64)
        for number, family in enumerate(channels.families):
            self._family[family.labels] = number

    def axis(self, ids: Ids) -> AxisTerms:
        """The terms of an axis. ids: (length,) labels; those of no family stay."""
        owners = self._family[self._labels.find(ids)]
        counts = np.bincount(owners[owners >= 0], minlength=len(self.names))
        return AxisTerms(fixed=float((owners < 0).sum()), per_unit=counts / np.maximum(self.widths, 1))

    def constant(self, length: int) -> AxisTerms:
        """An axis that no plan changes."""
        return AxisTerms(fixed=float(length), per_unit=np.zeros(len(self.names)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SizeTerms:
    """A sum of products, one a row. Made by `size_terms`.

    names: of the tensors.  scale: (rows,).  fixed: (rows, axes).  per_unit: (rows, axes, families). All float64; an
    axis that a tensor lacks has the length 1.
    """

    names: tuple[str, ...]
    families: tuple[str, ...]
    scale: Amounts
    fixed: Amounts
    per_unit: Amounts

    def each(self, widths: Widths) -> Amounts:
        """The size of every tensor at these widths: (rows,)."""
        lengths: Amounts = self.fixed + self.per_unit @ self._checked(widths)
        sizes: Amounts = self.scale * lengths.prod(axis=1)
        return sizes

    def total(self, widths: Widths) -> float:
        """The sum over all tensors."""
        return float(self.each(widths).sum())

    def _checked(self, widths: Widths) -> Amounts:
        if widths.shape != (len(self.families),):
            raise ValueError(f"widths has the shape {widths.shape}, there are {len(self.families)} families")
        return widths.astype(np.float64)


def size_terms(
    index: FamilyIndex, names: Sequence[str], scale: Sequence[float], axes: Sequence[Sequence[AxisTerms]]
) -> SizeTerms:
    """One row for each name. axes: of every tensor, in order."""
    depth = max(map(len, axes), default=0)
    fixed = np.ones((len(names), depth))
    per_unit = np.zeros((len(names), depth, len(index.names)))
    for row, own in enumerate(axes):
        for number, axis in enumerate(own):
            fixed[row, number], per_unit[row, number] = axis.fixed, axis.per_unit
    return SizeTerms(
        names=tuple(names),
        families=index.names,
        scale=np.array(scale, np.float64),
        fixed=fixed,
        per_unit=per_unit,
    )
