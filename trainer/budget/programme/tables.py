"""From charges to tables: what each costs, over the choices that it depends on, added up by what those are.

A charge that depends on one family is a vector over its rungs, one that depends on two a table over theirs; which of
them is read and which made makes no difference any more, so a layer from A to B and one from B to A share a table. A
charge of three families and more is a table over its two totals, of which at least one is a sum of families.

Of a table T only what neither side can say alone is kept as one: T[a,b] - T[a,0] - T[0,b] + T[0,0]. The rest are
vectors. Where nothing is left (a cost of one side, or the sum of two) there is no table at all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .problem import Costs, Counts, Ladder, Problem, Total

Side = tuple[tuple[int, int], ...]
"""(family, coefficient), families ascending, no common divisor: one family is ((f, 1),), others are sums of several."""
Scaled = tuple[Side, int]
"""A side, and what it is multiplied by."""
Key = tuple[Side, ...]
"""What a table runs over: no side, one, or two, ascending."""

NOTHING = 1e-12
"""Share of a table's largest cost below which what differences leave is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tabulated:
    """usage[r] = offsets[r] + sum over keys of tables[key][r][the levels chosen].

    tables: key -> resource -> (levels of the first side[, levels of the second]) float64, zero where either is at its
    first level.
    """

    offsets: Mapping[str, float]
    tables: Mapping[Key, Mapping[str, Costs]]


def single(family: int) -> Side:
    """The side of one family."""
    return ((family, 1),)


def scaled_side(items: Sequence[tuple[int, int]]) -> Scaled:
    """The side of a sum of (family, coefficient) pairs, their common divisor taken out."""
    divisor = math.gcd(*(count for _, count in items))
    return tuple(sorted((family, count // divisor) for family, count in items)), divisor


class Levels:
    """Which values each side can take."""

    def __init__(self, ladders: Sequence[Ladder]) -> None:
        self.ladders = ladders
        self._known: dict[Side, Counts] = {}

    def of(self, side: Side) -> Counts:
        """(levels,) ascending."""
        if side not in self._known:
            found = np.zeros(1, np.int64)
            for family, count in side:
                own = count * np.array(self.ladders[family].widths, np.int64)
                found = np.unique(found[:, None] + own)
            self._known[side] = found
        return self._known[side]

    def free(self, total: Total) -> tuple[int, list[tuple[int, int]]]:
        """What of a total is settled, and (family, coefficient) of those that have a choice."""
        settled, items = total.constant, []
        for family, count in sorted(total.coefficients.items()):
            widths = self.ladders[family].widths
            if len(widths) == 1:
                settled += count * widths[0]
            else:
                items.append((family, count))
        return settled, items


def tabulate(problem: Problem, levels: Levels, resources: Collection[str]) -> Tabulated:
    """Ask every charge for all costs of the charged ones among `resources`, and add them up."""
    gathered: dict[Key, dict[str, list[Costs]]] = {}
    for charge in problem.charges:
        names = set(charge.costs) & set(resources)
        if not names:
            continue
        (settled_in, items_in), (settled_out, items_out) = levels.free(charge.inputs), levels.free(charge.outputs)
        families = sorted({family for family, _ in (*items_in, *items_out)})
        if len(families) <= 2:
            key: Key = tuple(map(single, families))
            scaled_in, scaled_out = (
                [(single(family), count) for family, count in items] for items in (items_in, items_out)
            )
        else:
            scaled_in, scaled_out = ([scaled_side(items)] if items else [] for items in (items_in, items_out))
            key = tuple(sorted({side for side, _ in (*scaled_in, *scaled_out)}))
        inputs, outputs = _grid(settled_in, scaled_in, key, levels), _grid(settled_out, scaled_out, key, levels)
        for name in names:
            gathered.setdefault(key, {}).setdefault(name, []).append(charge.cost(name, inputs, outputs))

    offsets = {name: [problem.constants.get(name, 0.0)] for name in resources}
    tables: dict[Key, dict[str, Costs]] = {}
    for key, costs in sorted(gathered.items()):
        for name, several in sorted(costs.items()):
            # Sorted before they are added, so that the sum does not depend on the order of the charges.
            table = np.sort(np.stack(several), axis=0).sum(axis=0)
            offsets[name].append(float(table.flat[0]))
            for own, share in _separate(key, table):
                if share.any():
                    shares = tables.setdefault(own, {})
                    shares[name] = shares[name] + share if name in shares else share
    return Tabulated(offsets={name: math.fsum(amounts) for name, amounts in offsets.items()}, tables=tables)


def _grid(settled: int, scaled: Sequence[Scaled], key: Key, levels: Levels) -> Counts:
    """A total over all levels of the sides of a key."""
    shape = tuple(len(levels.of(side)) for side in key)
    total = np.full(shape, settled, np.int64)
    for side, count in scaled:
        axis = key.index(side)
        total += count * np.expand_dims(levels.of(side), tuple(other for other in range(len(key)) if other != axis))
    return total


def _separate(key: Key, table: Costs) -> list[tuple[Key, Costs]]:
    """What each side says alone and, of two, what only both can say; without what the table has at all first levels."""
    above = table - table.flat[0]
    if len(key) < 2:
        return [(key, above)] if key else []
    left, right = above[:, 0], above[0]
    both = above - left[:, None] - right
    both[np.abs(both) <= NOTHING * np.abs(table).max()] = 0.0
    return [(key[:1], left), (key[1:], right), (key, both)]
