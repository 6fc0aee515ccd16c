"""Which nets are on a front, and that a file that says otherwise is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.bench.front import SCHEMA, Front, Mark, dominators
from edgeslim.errors import DataError

from .fronts import front, point

# Few different values, so that ties and touching intervals are common.
SCORES, SPEEDS = st.integers(0, 4).map(lambda n: n / 4), st.integers(1, 6).map(lambda n: n / 2)
MARKS = st.builds(
    lambda score, speeds: Mark(score=score, low=min(speeds), high=max(speeds)), SCORES, st.tuples(SPEEDS, SPEEDS)
)
SETS = st.lists(MARKS, min_size=1, max_size=8).map(lambda marks: {f"net-{n}": mark for n, mark in enumerate(marks)})


@given(SETS)
def test_nobody_on_the_front_is_dominated_and_everybody_off_it_is_by_one_on_it(marks: Mapping[str, Mark]) -> None:
    by = dominators(marks)
    on_it = marks.keys() - by.keys()
    assert on_it
    for name in on_it:
        assert not any(other.dominates(marks[name]) for other in marks.values())
    for name, better in by.items():
        assert better in on_it
        assert marks[better].dominates(marks[name])


@given(MARKS, MARKS, MARKS)
def test_dominance_is_a_strict_order(a: Mark, b: Mark, c: Mark) -> None:
    assert not a.dominates(a)
    assert not (a.dominates(b) and b.dominates(a))
    assert a.dominates(c) or not (a.dominates(b) and b.dominates(c))


@pytest.mark.parametrize(
    ("score", "low", "high", "dominated"),
    [
        (0.8, 1.0, 1.0, True),  # as accurate, and slower
        (0.79, 2.0, 2.0, True),  # less accurate, touching the interval
        (0.8, 2.0, 2.0, False),  # perhaps exactly alike
        (0.81, 1.0, 1.0, False),  # more accurate
        (0.7, 2.0, 2.1, False),  # perhaps faster
        (0.7, 2.6, 2.8, False),  # faster
        (0.8, 2.0, 3.0, False),  # the same net twice
    ],
)
def test_who_is_dominated_by_a_net_that_is_two_to_three_times_as_fast(
    score: float, low: float, high: float, dominated: bool
) -> None:
    mark = Mark(score=score, low=low, high=high)
    assert Mark(score=0.8, low=2.0, high=3.0).dominates(mark) == dominated


def test_two_nets_alike_to_the_last_digit_are_both_on_the_front() -> None:
    assert not dominators({"a": Mark(score=0.5, low=2.0, high=2.0), "b": Mark(score=0.5, low=2.0, high=2.0)})


@pytest.mark.parametrize(
    ("score", "low", "high"), [(float("nan"), 1, 2), (0.5, 2, 1), (0.5, 0, 1), (0.5, 1, float("inf"))]
)
def test_what_is_no_place_on_a_front(score: float, low: float, high: float) -> None:
    with pytest.raises(ValueError, match="no place on a front"):
        Mark(score=score, low=low, high=high)


def test_dominated_points_are_marked_and_stay() -> None:
    found = front()
    assert [net.dominated_by for net in found.nets] == ["macs-0.64", None, "macs-0.26", None]


def test_a_front_survives_its_json() -> None:
    found = front()
    assert Front.from_json(found.to_json()) == found


PLANTED = [
    (lambda t: t.update(schema=SCHEMA + 1), f"reads up to {SCHEMA}"),
    (lambda t: t["points"][1].update(dominated_by=None), "dominated_by of macs-0.41 is not what the figures say"),
    (lambda t: t["points"][0].update(dominated_by="dense"), "dominated_by of macs-0.64 is not what the figures say"),
    (lambda t: t["points"][1]["validation"].update(dice=0.9), "dominated_by of .*macs-0.41"),
    (lambda t: t["points"][1].update(name="macs-0.64"), "each needs another name"),
    (lambda t: t["points"].reverse(), "shares are"),
    (lambda t: t.update(points=[]), "one is needed"),
    (lambda t: t["points"][0].update(speedup=None), "without speed-up"),
    (lambda t: t["dense"].update(share=0.5), "without speed-up"),
    (lambda t: t["points"][0]["speedup"].update(low=9.0), "no place on a front"),
    (lambda t: t["points"][2]["validation"].pop("dice"), "has no dice"),
    (lambda t: t.update(more=1), "unknown key"),
    (lambda t: t["points"][0]["net"].pop("bundle"), "missing"),
]


@pytest.mark.parametrize(("plant", "said"), PLANTED, ids=[said for _, said in PLANTED])
def test_a_front_that_cannot_be_is_refused(plant: object, said: str) -> None:
    table = json.loads(front().to_json())
    plant(table)  # type: ignore[operator]
    with pytest.raises(DataError, match=said):
        Front.from_json(json.dumps(table))


@pytest.mark.parametrize("text", ["", "[]", "nothing", "{}", "[" * 100_000, '{"schema": "1"}'])
def test_what_is_no_front(text: str) -> None:
    with pytest.raises(DataError):
        Front.from_json(text)


def test_dense_is_on_the_front_where_no_net_is_as_accurate() -> None:
    found = front(point("ratio-0.5", 1.0, 0.7, (2.0, 1.9, 2.1)))
    assert [net.dominated_by for net in found.nets] == [None, None]


def test_a_net_that_is_slower_and_worse_than_dense_is_dominated_by_it() -> None:
    found = front(point("ratio-0.5", 1.0, 0.7, (0.9, 0.8, 0.95)))
    assert [net.dominated_by for net in found.nets] == [None, "dense"]
