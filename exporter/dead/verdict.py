"""Which dead channels leave, where their constants go, and why the others stay.

A unit may leave if at every place that sums over it one of these holds: all weights that read it are zero; it arrives
as zero; it arrives as a constant that the place can take up (sites). Everything else keeps it, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..channels import ChannelMap
from ..channels.context import place
from ..channels.labels import Ids
from .constancy import Roots, constant_channels
from .sites import Site, Way, read_site

Measure = Callable[[list[tuple[str, int]]], Mapping[tuple[str, int], NDArray[np.float64]]]
"""(value, axis) of every place -> its constants, see arrivals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What arrives at a site. ids: (n,) root labels on its axis; constants: (n,) float64, NaN where it varies.

    blind: (n,) bool, it does not depend on the graph's input, though it may vary over space.
    """

    site: Site
    ids: Ids
    constants: NDArray[np.float64]
    blind: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """leaving: root labels that go. staying: dead ones that stay -> why. carriers: output of a site -> its carrier."""

    leaving: Roots
    staying: Mapping[int, str]
    arrivals: tuple[Arrival, ...]
    carriers: Mapping[str, int]


def judge(channels: ChannelMap, measure: Measure) -> Verdict:
    """Find the dead units of an analysis made with constants="record"."""
    units = frozenset(channels.unit_labels.tolist())
    constant = constant_channels(channels)
    places = _places(channels, units)
    wanted = {key for key in ((_name(s), s.axis) for s, _ in places) if constant.get(key[0], frozenset()) & units}
    measured = measure(sorted(wanted)) if wanted else {}
    arrivals = tuple(_arrival(site, ids, measured.get((_name(site), site.axis)), constant) for site, ids in places)
    staying: dict[int, str] = {}
    seen: set[int] = set()
    leaving = set(units)
    nodes: dict[ir.Node, list[Arrival]] = {}
    for arrival in arrivals:
        nodes.setdefault(arrival.site.node, []).append(arrival)
    for group in nodes.values():
        blocked, dead = _blocked(group, units)
        seen |= dead | set(blocked)
        leaving -= set(blocked)
        for root, reason in blocked.items():
            if root in dead:
                staying.setdefault(root, reason)
    leaving &= seen  # what no sum reads has not been looked at
    carriers = _choose_carriers(arrivals, leaving, staying)
    _keep_one(channels, leaving, staying)
    return Verdict(leaving=frozenset(leaving), staying=staying, arrivals=arrivals, carriers=carriers)


def _places(channels: ChannelMap, units: Roots) -> list[tuple[Site, Ids]]:
    """Every (site, labels on its axis) at which a unit is summed over."""
    found: dict[tuple[ir.Node, int, int], tuple[Site, Ids]] = {}
    for entry in channels.sums:
        roots = frozenset(channels.labels.find(entry.ids).tolist()) & units
        for operand, value in enumerate(entry.node.inputs):
            axes = channels.value_ids.get(value.name or "", ()) if value is not None and roots else ()
            for axis, ids in enumerate(axes):
                if ids is not None and roots & set(ids.tolist()):
                    site = read_site(entry.node, operand, axis)
                    if site.axis % len(axes) == axis or site.way is Way.NONE:
                        found[entry.node, operand, axis] = (site, ids)
    return list(found.values())


def _name(site: Site) -> str:
    value = site.node.inputs[site.operand]
    return (value.name or "") if value is not None else ""


def _arrival(site: Site, ids: Ids, measured: NDArray[np.float64] | None, constant: Mapping[str, Roots]) -> Arrival:
    """Constants are those that were measured and that the structure says can be nothing else."""
    blind = np.isin(ids, list(constant.get(_name(site), frozenset())))
    if measured is None or len(measured) != len(ids):
        measured = np.full(len(ids), np.nan)
    return Arrival(site=site, ids=ids, constants=np.where(blind, measured, np.nan), blind=blind)


def _blocked(arrivals: list[Arrival], units: Roots) -> tuple[dict[int, str], set[int]]:
    """Of one node: the units that cannot leave it -> why, and those that are constant there, or not read."""
    blocked: dict[int, str] = {}
    dead: set[int] = set()
    silent: set[int] = set()
    for a in arrivals:
        unread = a.site.unread() if a.site.weight is not None else np.zeros(len(a.ids), np.bool_)
        unread = unread if len(unread) == len(a.ids) else np.zeros(len(a.ids), np.bool_)
        for root in (frozenset(a.ids.tolist()) & units) - silent:
            at = a.ids == root
            varies = np.isnan(a.constants[at]) & ~unread[at]
            if not varies.any():
                dead.add(root)
                takes = a.site.way is not Way.NONE
                if takes or not np.any(a.constants[at][~unread[at]]):
                    if not np.any(a.constants[at][~unread[at]]):
                        silent.add(root)  # a product with zero, whatever the other operand is
                    continue
                blocked[root] = f"a constant that {place(a.site.node)} cannot take up"
            else:
                blocked[root] = f"a constant with another border, read by {place(a.site.node)}"
                if (a.blind[at] | unread[at]).all():
                    dead.add(root)
    return {root: why for root, why in blocked.items() if root not in silent}, dead


def _choose_carriers(arrivals: tuple[Arrival, ...], leaving: set[int], staying: dict[int, str]) -> dict[str, int]:
    """At every padded site one constant channel takes up the others; take those that serve many sites."""
    padded = [a for a in arrivals if a.site.way is Way.CARRIER]
    needs = [(a, _sizes(a)) for a in padded]
    serves: dict[int, int] = {}
    for _, sizes in needs:
        for root in sizes:
            serves[root] = serves.get(root, 0) + 1
    chosen: dict[str, int] = {}
    kept: set[int] = set()
    for a, sizes in needs:
        wanted = sizes.keys() & leaving
        if not wanted:
            continue
        able = (sizes.keys() & kept) or (sizes.keys() - leaving) or wanted
        root = max(able, key=lambda r: (serves[r], sizes[r], -r))
        chosen[a.site.node.outputs[0].name or ""] = root
        kept.add(root)
        if root in leaving:
            leaving.discard(root)
            staying[root] = f"carries the constants of dead channels into {place(a.site.node)}"
    return chosen


def _sizes(arrival: Arrival) -> dict[int, float]:
    """Root label -> |k| at the first of its positions, for those that arrive as a non-zero constant everywhere."""
    first: dict[int, float] = {}
    varying: set[int] = set()
    unread = arrival.site.unread()
    for root, constant, skip in zip(arrival.ids.tolist(), arrival.constants.tolist(), unread.tolist()):
        if np.isnan(constant):
            varying.add(root)
        elif constant and not skip:
            first.setdefault(root, abs(constant))
    return {root: size for root, size in first.items() if root not in varying}


def _keep_one(channels: ChannelMap, leaving: set[int], staying: dict[int, str]) -> None:
    """No axis of any initializer may lose all its indices."""
    for name, axes in channels.initializer_axes.items():
        for index, axis in enumerate(axes):
            if axis is None:
                continue
            roots = channels.labels.find(axis.ids).tolist()
            if all(root in leaving for root in roots):
                leaving.discard(roots[0])
                staying[roots[0]] = f"the last channel of axis {index} of {name}"
