"""Labels: the vectorised union-find against sets, pins that survive unions, and what an axis carries."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.exporter.channels.labels import Axis, Labels

SIZE = 40
PAIRS = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)), min_size=1, max_size=12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("unite"), PAIRS),
        st.tuples(st.just("pin"), st.tuples(st.lists(st.integers(0, SIZE - 1), max_size=5), st.text(max_size=3))),
    ),
    max_size=20,
)


class Sets:
    """The same, naively: every label points at the set it is in."""

    def __init__(self, size: int) -> None:
        self.of = {i: {i} for i in range(size)}
        self.pins: list[tuple[int, str]] = []

    def unite(self, a: int, b: int) -> None:
        joined = self.of[a] | self.of[b]
        for member in joined:
            self.of[member] = joined

    def pinned(self) -> dict[int, str]:
        reasons: dict[int, str] = {}
        for label, reason in self.pins:
            reasons.setdefault(min(self.of[label]), reason)
        return reasons


@given(STEPS)
def test_classes_and_pins_equal_those_of_sets(steps: list[tuple[str, object]]) -> None:
    labels, sets = Labels(), Sets(SIZE)
    ids = labels.fresh(SIZE)
    for kind, argument in steps:
        if kind == "unite":
            pairs: list[tuple[int, int]] = argument  # type: ignore[assignment]
            labels.unite(*(np.array(side, np.int64) for side in zip(*pairs)))
            for a, b in pairs:
                sets.unite(a, b)
        else:
            chosen, reason = argument  # type: ignore[misc]
            labels.pin(np.array(chosen, np.int64), reason)
            sets.pins += [(label, reason) for label in chosen]
        assert labels.find(ids).tolist() == [min(sets.of[i]) for i in range(SIZE)]
        assert labels.pinned() == sets.pinned()


def test_the_first_reason_of_a_class_is_the_one_reported() -> None:
    labels = Labels()
    ids = labels.fresh(4)
    labels.pin(ids[3:], "first")
    labels.pin(ids[:1], "second")
    labels.pin(ids[3:], "third")
    assert labels.pinned() == {0: "second", 3: "first"}
    labels.unite(ids[:2], ids[2:])  # 0 ~ 2, 1 ~ 3
    assert labels.pinned() == {0: "second", 1: "first"}
    labels.unite(ids[0], ids[1])
    assert labels.pinned() == {0: "first"}


def test_labels_are_fresh_across_many_growths() -> None:
    labels = Labels()
    pieces = [labels.fresh(n) for n in (0, 1, 1000, 30, 5000, 100_000)]
    every = np.concatenate(pieces)
    assert len(labels) == len(every)
    assert np.array_equal(every, np.arange(len(every)))
    assert np.array_equal(labels.find(every), every)


def test_a_chain_of_many_labels_is_one_class() -> None:
    """Each label united with its neighbour is the deepest tree there can be: it once took the square of its length."""
    labels = Labels()
    ids = labels.fresh(200_000)
    labels.unite(ids[:-1], ids[1:])
    assert not labels.find(ids).any()


def test_unite_broadcasts() -> None:
    labels = Labels()
    grid = labels.fresh(12).reshape(3, 4)
    labels.unite(grid, grid[:1])
    assert labels.find(grid).tolist() == [[0, 1, 2, 3]] * 3
    labels.unite(grid, grid[0, 0])
    assert not labels.find(grid).any()


def test_find_leaves_its_argument_alone() -> None:
    labels = Labels()
    ids = labels.fresh(4)
    labels.unite(ids[:2], ids[2:])
    before = ids.copy()
    labels.find(ids)
    assert np.array_equal(ids, before)
    assert labels.find(np.empty(0, np.int64)).shape == (0,)


def test_an_axis_moves_labels_and_flags_alike() -> None:
    axis = Axis(np.array([4, 7, 9]), np.array([True, False, True]), ("w", 1))
    assert len(axis) == 3
    moved = axis.moved(lambda a: np.repeat(a[::-1], 2))
    assert moved.ids.tolist() == [9, 9, 7, 7, 4, 4]
    assert moved.zero.tolist() == [True, True, False, False, True, True]
    assert moved.source is None  # what was moved is no longer literally that axis
    assert axis.with_zero(False).zero.tolist() == [False] * 3
    assert axis.with_zero(np.array([False, True, True])).zero.tolist() == [False, True, True]
