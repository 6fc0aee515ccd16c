"""Channel labels: which elements of which axes live or die together.

Every axis of every tensor that can shrink carries an integer array of labels, one per index. Operators move labels
exactly as they move elements; where an operator needs two elements to share their fate (the two sides of an addition)
their labels are united. The classes of this union-find are the units of pruning.

With each label goes a flag that says whether the element is *zero* once its unit is masked. It is what makes removal
exact: a consumer may lose an input only if that input contributes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Axis:
    """Labels of one axis of length n.

    ids: (n,) int64. zero: (n,) bool, the element is zero once its unit is masked.
    source: (initializer, axis) if this axis is literally that axis of an initializer, moved but not mixed.
    """

    ids: Ids
    zero: Flags
    source: tuple[str, int] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def moved(self, move: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> Axis:
        """Apply one index movement (a slice, a gather, a repeat) to labels and flags alike."""
        return Axis(np.asarray(move(self.ids), np.int64), np.asarray(move(self.zero), np.bool_))

    def with_zero(self, zero: Flags | bool) -> Axis:
        """The same labels, flagged `zero` (a scalar or one flag per label)."""
        return Axis(self.ids, np.broadcast_to(np.asarray(zero, np.bool_), self.ids.shape))


class Labels:
    """Union-find over labels, vectorised: 100,000 labels unite in milliseconds."""

    def __init__(self) -> None:
        self._parent: Ids = np.empty(1024, np.int64)
        self._count = 0
        self._reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return self._count

    def fresh(self, n: int) -> Ids:
        """n new labels, each its own class. Returns (n,) int64."""
        start, self._count = self._count, self._count + n
        if self._count > len(self._parent):
            grown = np.empty(max(2 * len(self._parent), self._count), np.int64)
            grown[:start] = self._parent[:start]
            self._parent = grown
        ids = np.arange(start, self._count)
        self._parent[start : self._count] = ids
        return ids

    def find(self, ids: Ids) -> Ids:
        """The smallest label of each label's class, same shape as `ids`."""
        while True:
            roots = self._parent[ids]
            above = self._parent[roots]
            if np.array_equal(above, roots):
                return roots
            self._parent[ids] = above  # the way to the root halves in every round

    def unite(self, a: Ids, b: Ids) -> None:
        """Make a[i] and b[i] share their fate, for arrays of equal (or broadcastable) shape."""
        a, b = (np.ravel(x) for x in np.broadcast_arrays(a, b))
        while True:
            low, high = self.find(a), self.find(b)
            low, high = np.minimum(low, high), np.maximum(low, high)
            if np.array_equal(low, high):
                return
            # Several pairs may hook the same root at once: the smallest wins, the loop settles the others.
            np.minimum.at(self._parent, high, low)

    def pin(self, ids: Ids, reason: str) -> None:
        """These labels never die; the first reason given for a label is the one reported."""
        for label in np.unique(ids).tolist():
            self._reasons.setdefault(label, reason)

    def pinned(self) -> dict[int, str]:
        """Root of every pinned class -> the reason that came first."""
        if not self._reasons:
            return {}
        members = np.fromiter(self._reasons, np.int64)
        reasons: dict[int, str] = {}
        for root, reason in zip(self.find(members).tolist(), self._reasons.values()):
            reasons.setdefault(root, reason)
        return reasons
