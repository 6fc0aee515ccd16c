"""Families against the plain definition: slices grouped label by label, in Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.exporter.channels.families import find_families
from edgeslim.exporter.channels.labels import Axis, Labels


@st.composite
def labelled_axes(draw: st.DrawFn) -> tuple[dict[str, list[Axis | None]], Labels, frozenset[tuple[str, int]]]:
    """A few initializers whose axes share labels at random, some of them within one axis."""
    labels, axes, masked = Labels(), dict[str, list[Axis | None]](), set[tuple[str, int]]()
    for name in draw(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1, max_size=6)):
        axes[name] = []
        for index in range(draw(st.integers(1, 3))):
            width = draw(st.integers(1, 5))
            shrinks = width > 1 and draw(st.booleans())
            axes[name].append(Axis(labels.fresh(width), np.zeros(width, np.bool_)) if shrinks else None)
            if shrinks and draw(st.booleans()):
                masked.add((name, index))
    if len(labels):
        pairs = draw(st.lists(st.tuples(*[st.integers(0, len(labels) - 1)] * 2), max_size=2 * len(labels)))
        for a, b in pairs:
            labels.unite(np.array([a]), np.array([b]))
    return axes, labels, frozenset(masked)


@settings(max_examples=300, deadline=None)
@given(labelled_axes(), st.data())
def test_families_are_what_grouping_by_hand_gives(
    net: tuple[dict[str, list[Axis | None]], Labels, frozenset[tuple[str, int]]], data: st.DataObject
) -> None:
    axes, labels, masked = net
    pinned = np.zeros(len(labels), np.bool_)
    if len(labels):
        pinned[sorted(data.draw(st.sets(st.integers(0, len(labels) - 1))))] = True
    slices: dict[int, list[tuple[str, int, tuple[int, ...]]]] = {}
    for name, own in axes.items():
        for index, axis in enumerate(own):
            roots = [] if axis is None else labels.find(axis.ids).tolist()
            for root in dict.fromkeys(roots):
                if not pinned[root]:
                    where = tuple(i for i, r in enumerate(roots) if r == root)
                    slices.setdefault(root, []).append((name, index, where))
    silent = {root for root, own in slices.items() if not masked.intersection((n, i) for n, i, _ in own)}
    kinds: dict[object, list[int]] = {}
    for root in sorted(slices.keys() - silent):
        kinds.setdefault(tuple((n, i) for n, i, _ in slices[root]), []).append(root)

    families, unsilenced = find_families(axes, labels, masked, pinned)
    assert unsilenced.tolist() == sorted(silent)
    assert [family.labels.tolist() for family in families] == list(kinds.values())
    for family in families:
        assert len({f.name for f in families}) == len(families)
        assert family.width == len(family.units)
        for unit in family.units:
            assert [(m.initializer, m.axis, m.indices) for m in unit.members] == slices[unit.label]
            assert [m.masked for m in unit.members] == [(m.initializer, m.axis) in masked for m in unit.members]
        assert family.name.partition("#")[0] in {p.initializer for p in family.places if p.masked}
