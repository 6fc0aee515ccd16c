"""From tables to linear rows over zero-one choices.

    x[f, k]     family f stands on rung k                      integer; sum_k x[f, k] = 1
    y[t, a, b]  table t's first side is at a, its second at b  sum_b y = first at a, sum_a y = second at b
    z[s, v]     the sum s of several families is v             z[s, v] = sum of y over all a, b that add up to v

A sum of families is added up one family after the other, over the tables (f1, f2), (f1 + f2, f3) and so on; sums of the
same beginning share it.

Only x need be integer: where every x is 0 or 1, the rows leave y no other values than the products of its two sides,
and z none than 0 and 1. Without integrality they are the local polytope: tight, up to the limits, where the tables form
a tree, as those of a residual net do. All resources share one y.

Source of the polytope: Schlesinger 1976; Wainwright & Jordan 2008, section 4.1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .problem import Problem
from .tables import Levels, Side, scaled_side, single, tabulate


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """usage = offset + coefficients @ columns. coefficients: (columns,) float64."""

    offset: float
    coefficients: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Formulation:
    """equalities @ columns = sums, and every column lies in [0, 1].

    choices: family -> its columns, one a rung from the narrowest, integer; empty where there is nothing to choose.
    equalities: (rows, columns); sums: (rows,).
    usage: resource -> the rows of which its usage is the largest; a charged one has one.
    """

    choices: tuple[range, ...]
    columns: int
    equalities: sparse.csr_array
    sums: NDArray[np.float64]
    usage: Mapping[str, tuple[Row, ...]]


def formulate(problem: Problem, resources: Collection[str]) -> Formulation:
    """The rows of these resources, and what columns they need."""
    levels = Levels(problem.ladders)
    tabulated = tabulate(problem, levels, resources)
    columns = _Columns(levels)
    places = {key: columns.side(*key) if len(key) == 1 else columns.table(*key) for key in sorted(tabulated.tables)}
    usage: dict[str, tuple[Row, ...]] = {}
    for name in sorted(resources):
        if name in problem.moments:
            usage[name] = _moments(problem, name, columns)
            continue
        coefficients = np.zeros(columns.count)
        for key, place in places.items():
            if name in tabulated.tables[key]:
                coefficients[place.start : place.stop] = tabulated.tables[key][name].ravel()
        usage[name] = (Row(offset=tabulated.offsets[name], coefficients=coefficients),)
    return Formulation(
        choices=tuple(columns.choices),
        columns=columns.count,
        equalities=columns.equalities(),
        sums=np.array(columns.sums),
        usage=usage,
    )


class _Columns:
    """Gives columns to sides and tables when they are first asked for, and keeps the equalities that tie them."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._sides: dict[Side, range] = {}
        self._joint: dict[tuple[Side, Side], range] = {}
        self._entries: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
        self.count = 0
        self.sums: list[float] = []
        self.choices = [
            self._new(len(ladder.widths)) if len(ladder.widths) > 1 else range(0) for ladder in levels.ladders
        ]
        for family, own in enumerate(self.choices):
            if own:
                self._sides[single(family)] = own
                self._tie(np.zeros(len(own), np.int64), np.array(own), np.ones(len(own)), [1.0])

    def side(self, side: Side) -> range:
        """One column a level."""
        if side not in self._sides:
            self._sides[side] = self._sum(side)
        return self._sides[side]

    def table(self, first: Side, second: Side) -> range:
        """One column for every two levels, those of the second running faster. Needs first < second."""
        if (first, second) not in self._joint:
            left, right = self.side(first), self.side(second)
            own = self._new(len(left) * len(right))
            grid = np.array(own).reshape(len(left), len(right))
            for edge, sums in ((left, grid), (right, grid.T)):
                rows = np.arange(len(edge))
                self._tie(
                    np.concatenate([rows, np.repeat(rows, sums.shape[1])]),
                    np.concatenate([np.array(edge), sums.ravel()]),
                    np.concatenate([np.full(len(edge), -1.0), np.ones(sums.size)]),
                    [0.0] * len(edge),
                )
            self._joint[first, second] = own
        return self._joint[first, second]

    def equalities(self) -> sparse.csr_array:
        """(rows, columns) of all that was tied."""
        if not self._entries:
            return sparse.csr_array((0, self.count))
        rows, columns, values = (np.concatenate(each) for each in zip(*self._entries))
        return sparse.csr_array((values, (rows, columns)), shape=(len(self.sums), self.count))

    def _sum(self, side: Side) -> range:
        """The columns of a sum: what it is without its last family, and that family, as a table."""
        (first, times), (second, again) = scaled_side(side[:-1]), scaled_side(side[-1:])
        turned = first > second
        place = self.table(second, first) if turned else self.table(first, second)
        reached = times * self._levels.of(first)[:, None] + again * self._levels.of(second)
        levels = self._levels.of(side)
        own = self._new(len(levels))
        rows = np.arange(len(levels))
        self._tie(
            np.concatenate([rows, np.searchsorted(levels, (reached.T if turned else reached).ravel())]),
            np.concatenate([np.array(own), np.array(place)]),
            np.concatenate([np.full(len(own), -1.0), np.ones(len(place))]),
            [0.0] * len(own),
        )
        return own

    def _new(self, count: int) -> range:
        self.count += count
        return range(self.count - count, self.count)

    def _tie(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[np.float64], sums: list[float]
    ) -> None:
        self._entries.append((rows + len(self.sums), columns, values))
        self.sums += sums


def _moments(problem: Problem, name: str, columns: _Columns) -> tuple[Row, ...]:
    """A row for every moment that is not at or below another at all widths."""
    moments = problem.moments[name]
    amounts = np.zeros((len(moments), 1 + len(problem.ladders)))
    for own, moment in zip(amounts, moments):
        own[0] = moment.constant
        for family, each in moment.per_channel.items():
            own[1 + family] = each
    kept: list[NDArray[np.float64]] = []
    for own in np.unique(amounts, axis=0)[::-1]:  # what covers a moment is lexicographically above it
        if not any((own <= other).all() for other in kept):
            kept.append(own)
    narrowest = np.array([ladder.widths[0] for ladder in problem.ladders])
    rows = []
    for own in kept:
        coefficients = np.zeros(columns.count)
        for ladder, place, each in zip(problem.ladders, columns.choices, own[1:]):
            if place:
                coefficients[place.start : place.stop] = each * (np.array(ladder.widths) - ladder.widths[0])
        rows.append(Row(offset=float(own[0] + own[1:] @ narrowest), coefficients=coefficients))
    return tuple(rows)
