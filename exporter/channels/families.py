"""From united labels back to slices of initializers: units, and the families over which widths are chosen.

A unit is a class of labels with all the slices it stands for; units with slices on the same axes of the same
initializers form a family. A large net has a million slices, so a family keeps them as arrays, one
row a unit, and makes `Unit` objects only for those who ask for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InvariantError

from .labels import Axis, Flags, Ids, Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Indices of one axis of one initializer that belong to a unit.

    masked: the trainer sets these slices to zero to silence the unit (its producers; not its consumers).
    """

    initializer: str
    axis: int
    indices: tuple[int, ...]
    masked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The smallest thing that can be cut: all its members, or none."""

    label: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
    """The slices of a whole family on one axis: index `indices[i]` belongs to unit `owners[i]` of the family.

    owners: (slices,) int64, ascending. indices: (slices,) int64. masked as in `Member`.
    """

    initializer: str
    axis: int
    masked: bool
    owners: NDArray[np.int64]
    indices: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """Units whose members lie on the same axes; `name` is the first initializer that produces them.

    labels: (units,) int64, the root label of each unit, ascending.
    """

    name: str
    labels: Ids
    places: tuple[Place, ...]

    @property
    def width(self) -> int:
        """Number of units."""
        return len(self.labels)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """The units one by one."""
        rows = [np.split(p.indices, np.flatnonzero(np.diff(p.owners)) + 1) for p in self.places]
        return tuple(
            Unit(
                label=label,
                members=tuple(
                    Member(initializer=p.initializer, axis=p.axis, indices=tuple(row[i].tolist()), masked=p.masked)
                    for p, row in zip(self.places, rows)
                ),
            )
            for i, label in enumerate(self.labels.tolist())
        )


def find_families(
    axes: Mapping[str, Sequence[Axis | None]], labels: Labels, masked: frozenset[tuple[str, int]], pinned: Flags
) -> tuple[tuple[Family, ...], Ids]:
    """All families, and the root labels that nobody can silence.

    axes: initializer -> its axes.  masked: the (initializer, axis) that the trainer can set to zero.  pinned: (labels,)
    bool, True at the roots that stay.
    """
    slices = _Slices.collect(axes, labels, masked, pinned)
    if not len(slices.roots):
        return (), slices.roots
    return slices.families()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slices:
    """Every index of every axis that may leave, sorted by root label, then axis, then position.

    places: the axes; silencing: which of them are masked. roots, place, index: (slices,) int64, the unit, the position
    in `places`, and the index.
    """

    places: list[tuple[str, int]]
    silencing: Flags
    roots: Ids
    place: NDArray[np.int64]
    index: NDArray[np.int64]

    @classmethod
    def collect(
        cls,
        axes: Mapping[str, Sequence[Axis | None]],
        labels: Labels,
        masked: frozenset[tuple[str, int]],
        pinned: Flags,
    ) -> _Slices:
        found = [(name, i, axis) for name, own in axes.items() for i, axis in enumerate(own) if axis is not None]
        places = [(name, i) for name, i, _ in found]
        sizes = np.array([len(axis) for _, _, axis in found], np.int64)
        none = np.empty(0, np.int64)
        roots = labels.find(np.concatenate([none, *(axis.ids for _, _, axis in found)]))
        place = np.repeat(np.arange(len(found)), sizes)
        index = np.arange(len(roots)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        free = np.flatnonzero(~pinned[roots])
        order = free[np.argsort(roots[free], kind="stable")]  # stable: places and indices stay in their order
        silencing = np.array([p in masked for p in places], np.bool_)
        return cls(places=places, silencing=silencing, roots=roots[order], place=place[order], index=index[order])

    def families(self) -> tuple[tuple[Family, ...], Ids]:
        """Group the units that have slices on the same axes."""
        # A run: the slices of one unit at one place. Runs of one unit follow each other.
        runs = _starts(self.roots, self.place)
        sizes = np.diff(runs, append=len(self.roots))
        where, units = self.place[runs], _starts(self.roots[runs])
        counts = np.diff(units, append=len(runs))
        labels = self.roots[runs[units]]
        heard = np.add.reduceat(self.silencing[where].astype(np.int64), units) > 0
        # Units of one family have the same sequence of places. Sequences are told apart by a hash and then compared.
        keys = np.random.default_rng(0).integers(1, 2**63, len(self.places), np.uint64)
        steps = np.arange(len(runs)) - np.repeat(units, counts)
        mixed = keys[where] * (2 * steps.astype(np.uint64) + 1)
        signature = np.asarray(np.add.reduceat(mixed, units), np.uint64) ^ counts.astype(np.uint64)
        families, seen = [], dict[str, int]()
        for members in _equal(signature, np.flatnonzero(heard)):
            rows = units[members][:, None] + np.arange(counts[members[0]])  # (units, places): the run of each
            if not (where[rows] == where[rows[0]]).all():
                raise InvariantError("two kinds of units have one signature")
            places = tuple(self._place(runs[column], sizes[column]) for column in rows.T)
            base = next(p.initializer for p in places if p.masked)
            seen[base] = seen.get(base, 0) + 1
            name = base if seen[base] == 1 else f"{base}#{seen[base]}"
            families.append(Family(name=name, labels=labels[members], places=places))
        return tuple(families), labels[~heard]

    def _place(self, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Place:
        """One place of a family; its units' slices begin at `starts` and are `sizes` many."""
        owners = np.repeat(np.arange(len(starts)), sizes)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        number = int(self.place[starts[0]])
        name, axis = self.places[number]
        return Place(
            initializer=name,
            axis=axis,
            masked=bool(self.silencing[number]),
            owners=owners,
            indices=self.index[starts[owners] + within],
        )


def _starts(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where a row differs from the one before it."""
    changed = [np.diff(column, prepend=column[0] - 1) != 0 for column in columns]
    return np.flatnonzero(np.logical_or.reduce(changed))


def _equal(signature: NDArray[np.uint64], among: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The positions in `among` with equal signatures, group by group, in the order of first appearance."""
    _, first, inverse = np.unique(signature[among], return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    groups = np.split(among[order], np.flatnonzero(np.diff(inverse[order])) + 1)
    return [groups[i] for i in np.argsort(first, kind="stable").tolist()]
