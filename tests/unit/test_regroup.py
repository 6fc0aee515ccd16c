"""Reshape on labels against NumPy's own reshape: every element's label must arrive where the element does."""

from __future__ import annotations

import itertools
import math
from typing import cast

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeslim.exporter.channels.context import Channels
from edgeslim.exporter.channels.labels import Axis
from edgeslim.exporter.channels.rules.regroup import Dim, Group, match, regroup

Shape = tuple[int, ...]


@st.composite
def shapes(draw: st.DrawFn) -> tuple[Shape, Shape]:
    """Two shapes of one product: the same primes, grouped anew, with axes of length 1 strewn in."""
    primes = draw(st.lists(st.sampled_from([2, 2, 3, 5]), min_size=1, max_size=5))

    def grouped(factors: list[int]) -> Shape:
        cuts = draw(st.sets(st.integers(0, len(factors)), max_size=len(factors)))
        bounds = [0, *sorted(cuts), len(factors)]
        return tuple(math.prod(factors[a:b]) for a, b in itertools.pairwise(bounds))

    return grouped(primes), grouped(draw(st.permutations(primes)))


def labelled(channels: Channels, shape: Shape, carried: set[int]) -> list[Axis | None]:
    """Fresh labels on the chosen axes, each second element silent."""
    return [
        Axis(channels.labels.fresh(n), np.arange(n) % 2 == 0) if i in carried and n > 1 else None
        for i, n in enumerate(shape)
    ]


def spread(axis: Axis, index: int, shape: Shape, what: str) -> NDArray[np.generic]:
    """What each element of a tensor of this shape reads on one axis."""
    flat = cast("NDArray[np.generic]", getattr(axis, what))
    return np.broadcast_to(flat.reshape([-1 if i == index else 1 for i in range(len(shape))]), shape)


def moved_to(axis: Axis, index: int, before: Shape, after: Shape, what: str) -> NDArray[np.generic]:
    return spread(axis, index, before, what).reshape(after)


@given(shapes(), st.data())
def test_labels_arrive_where_the_elements_do(pair: tuple[Shape, Shape], data: st.DataObject) -> None:
    before, after = pair
    index = data.draw(st.integers(0, len(before) - 1))
    assume(before[index] > 1)
    channels = Channels(frozenset())
    axes = labelled(channels, before, {index})
    source = axes[index]
    assert source is not None
    out = regroup(axes, before, after, channels)
    assert not isinstance(out, str)  # one channel axis and known sizes: there is always a way
    (place,) = (i for i, axis in enumerate(out) if axis is not None)
    axis = out[place]
    assert axis is not None and len(axis) == after[place]
    find = channels.labels.find
    wanted = find(moved_to(source, index, before, after, "ids").astype(np.int64))
    assert np.array_equal(find(spread(axis, place, after, "ids").astype(np.int64)), wanted)
    # Nothing is called silent that is not: a flag stands for every element of its slice.
    silent = moved_to(source, index, before, after, "zero")
    assert np.all(silent[spread(axis, place, after, "zero").astype(bool)])
    assert channels.labels.pinned() == {}


@given(shapes(), st.data())
def test_two_channel_axes_stay_apart_or_decline(pair: tuple[Shape, Shape], data: st.DataObject) -> None:
    before, after = pair
    wide = [i for i, n in enumerate(before) if n > 1]
    assume(len(wide) > 1)
    chosen = data.draw(st.lists(st.sampled_from(wide), min_size=2, max_size=2, unique=True))
    channels = Channels(frozenset())
    axes = labelled(channels, before, set(chosen))
    together = any(set(chosen) <= set(g.inputs) for g in match(before, after))
    out = regroup(axes, before, after, channels)
    if together:
        assert out == "merges two channel axes"
        return
    assert not isinstance(out, str)
    find = channels.labels.find
    seen = [find(spread(a, i, after, "ids").astype(np.int64)) for i, a in enumerate(out) if a is not None]
    for index in chosen:
        source = axes[index]
        assert source is not None
        wanted = find(moved_to(source, index, before, after, "ids").astype(np.int64))
        assert any(np.array_equal(s, wanted) for s in seen)


@given(shapes())
def test_groups_cover_both_shapes_and_cannot_be_split(pair: tuple[Shape, Shape]) -> None:
    before, after = pair
    groups = match(before, after)
    for side, shape in (("inputs", before), ("outputs", after)):
        covered = [i for g in groups for i in getattr(g, side)]
        assert covered == sorted(set(covered))
        assert all(shape[i] == 1 for i in set(range(len(shape))) - set(covered))
    for group in groups:
        left, right = [before[i] for i in group.inputs], [after[o] for o in group.outputs]
        assert math.prod(left) == math.prod(right)
        inner = {math.prod(left[:i]) for i in range(1, len(left))} & {
            math.prod(right[:o]) for o in range(1, len(right))
        }
        assert inner <= {1, math.prod(left)}


@pytest.mark.parametrize(
    ("before", "after", "groups"),
    [
        (("n", 8, "h"), ("n", 2, 4, "h"), [((0, 1), (0, 1)), ((1, 2), (1, 3)), ((2, 3), (3, 4))]),
        (("n", 8, 1, 1), ("n", 8), [((0, 1), (0, 1)), ((1, 2), (1, 2))]),
        (("n", 8, 4), ("n", 32), [((0, 1), (0, 1)), ((1, 3), (1, 2))]),
        (("n", 8, None), ("n", 8, None), [((0, 1), (0, 1)), ((1, 2), (1, 2))]),
        (("n", 8, "h"), ("m", 8, "h"), [((1, 2), (1, 2)), ((2, 3), (2, 3))]),  # met from the far end
        (("n", 8, "h"), ("n", "8*h"), [((0, 1), (0, 1))]),
    ],
)  # fmt: skip
def test_unknown_lengths_match_by_name_alone(
    before: tuple[Dim, ...], after: tuple[Dim, ...], groups: list[tuple[tuple[int, int], tuple[int, int]]]
) -> None:
    assert match(before, after) == [Group(range(*i), range(*o)) for i, o in groups]


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (("n", 8, "h"), ("n", "8*h"), "axes of unknown length around the channels"),
        (("n", 8, None), ("m", 8, None), "axes of unknown length around the channels"),
        ((2, 8, 3), (2, 24), None),
    ],
)
def test_what_cannot_be_followed_declines(before: tuple[Dim, ...], after: tuple[Dim, ...], reason: str | None) -> None:
    channels = Channels(frozenset())
    out = regroup([None, Axis(channels.labels.fresh(8), np.zeros(8, np.bool_)), None], before, after, channels)
    assert (out if isinstance(out, str) else None) == reason


def test_an_axis_filled_by_one_channel_is_pinned_when_it_is_split() -> None:
    """Flattened and sliced: all elements of the axis are one channel. Its loss would leave an empty tensor."""
    channels = Channels(frozenset())
    label = channels.labels.fresh(1)
    out = regroup([None, Axis(np.repeat(label, 12), np.ones(12, np.bool_))], ("n", 12), ("n", 3, 4), channels)
    assert out == [None, None, None]
    assert list(channels.labels.pinned()) == label.tolist()
