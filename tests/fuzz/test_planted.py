"""Faults planted in the analysis must be found: a checker that cannot fail is worth nothing.

Each breaks one rule the way that a slip of the pen would, and the properties of test_fuzz.py must say so within a few
hundred nets.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.channels.analyze import LayerWidth
from edgeslim.exporter.channels.context import Axes, Channels, operand
from edgeslim.exporter.channels.labels import Axis
from edgeslim.exporter.channels.rules import RULES, Rule, contraction, elementwise
from edgeslim.exporter.passes import remove_channels as removal

from .builder import Net
from .graphs import nets
from .properties import Broken, Case, Cut, check_accounted, check_exact, check_unit, cuts

Patch = pytest.MonkeyPatch

ANALYSIS = importlib.import_module("edgeslim.exporter.channels.analyze")  # the package gives its function that name


def found_within(count: int) -> Broken | None:
    """The first fault that the properties find in so many nets."""

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],  # nets are slow to draw
        report_multiple_bugs=False,
    )
    @given(nets(), cuts())
    def search(net: Net, cut: Cut) -> None:
        case = Case.of(net)
        check_exact(case, cut.labels(case.channels))
        check_accounted(case)
        for family in case.channels.families[:3]:
            if family.width > 1 and Cut.spares_every_axis(case.channels, {family.units[-1].label}):
                check_unit(case, family.units[-1])

    try:
        search()
    except Broken as fault:
        return fault
    return None


def replace(patch: Patch, operator: str, rule: Rule) -> None:
    patch.setitem(RULES, operator, rule)


def depthwise_ties_nothing(patch: Patch) -> None:
    """Outputs get their labels, and forget whose they are."""

    def broken(node: ir.Node, channels: Channels, data: Axis | None, out: Axis | None, multiplier: int) -> None:
        if data is not None:
            channels.count(node, data.ids, attribute="group")

    patch.setattr(contraction, "_tie_depthwise", broken)


def concat_does_not_offset(patch: Patch) -> None:
    """Every part of a Concat begins with the labels of the first."""
    right = RULES["Concat"]

    def broken(node: ir.Node, channels: Channels) -> str | None:
        problem = right(node, channels)
        axes: Axes = list(channels.axes(node.outputs[0]))
        first = channels.axes(operand(node, 0))
        for index, axis in enumerate(axes):
            start = first[index] if index < len(first) else None
            if axis is not None and start is not None and len(axis) > len(start):
                axes[index] = Axis(np.resize(start.ids, len(axis)), np.resize(start.zero, len(axis)))
        channels.set(node.outputs[0], axes)
        return problem

    replace(patch, "Concat", broken)


def sigmoid_keeps_zero(patch: Patch) -> None:
    """sigmoid(0) = 0.5 is taken for silence."""
    replace(patch, "Sigmoid", elementwise.keeps_zero)


def shifts_keep_zero(patch: Patch) -> None:
    """A sum is taken for silent where only its first term is."""
    right = elementwise.broadcast

    def broken(
        node: ir.Node, channels: Channels, operands: list[ir.Value], needs_all: bool, silencers: int | None = None
    ) -> str | None:
        return right(node, channels, operands, False, silencers)

    patch.setattr(elementwise, "broadcast", broken)


def addition_ties_nothing(patch: Patch) -> None:
    """Of two terms only the first has a say."""

    def broken(node: ir.Node, channels: Channels) -> str | None:
        channels.set(node.outputs[0], channels.axes(operand(node, 0)))
        return None

    replace(patch, "Add", broken)


def bias_is_not_masked(patch: Patch) -> None:
    """A convolution is taken for silent without its bias."""
    right = Channels.mask

    def broken(channels: Channels, value: ir.Value | None, axis: int) -> object:
        if value is not None and value.shape is not None and len(value.shape) == 1:
            return True
        return right(channels, value, axis)

    patch.setattr(Channels, "mask", broken)


def graph_outputs_are_not_pinned(patch: Patch) -> None:
    """What the caller reads may shrink."""
    right = Channels.pin

    def broken(channels: Channels, target: Axis | ir.Value | None, reason: str) -> None:
        if not reason.startswith("graph output"):
            right(channels, target, reason)

    patch.setattr(Channels, "pin", broken)


def split_sizes_are_not_counted(patch: Patch) -> None:
    """The sizes of a Split stay what they were."""
    patch.setattr(Channels, "count", lambda *args, **options: None)


def one_channel_off(patch: Patch) -> None:
    """The neighbour of the cut channel leaves a kernel."""
    right = ChannelMap.alive

    def broken(channels: ChannelMap, ids: np.ndarray, cut: frozenset[int]) -> np.ndarray:
        alive = right(channels, ids, cut)
        return np.roll(alive, 1) if alive.any() else alive

    patch.setattr(ChannelMap, "alive", broken)


def gathers_are_not_renumbered(patch: Patch) -> None:
    """Positions stay what they were before channels left."""
    patch.setattr(removal, "_renumber", lambda *args: None)


def a_rule_raises(patch: Patch) -> None:
    """The analysis survives it, and the properties still say so."""

    def broken(node: ir.Node, channels: Channels) -> str | None:
        raise IndexError(node.op_type)

    replace(patch, "Resize", broken)


def a_reason_is_lost(patch: Patch) -> None:
    """A layer that stays whole does not say why."""
    right = ANALYSIS._layer

    def broken(node: ir.Node, channels: Channels, reason: str | None) -> LayerWidth | None:
        layer = right(node, channels, reason)
        return None if layer is None else dataclasses.replace(layer, fixed_reason="")

    patch.setattr(ANALYSIS, "_layer", broken)


FAULTS: tuple[Callable[[Patch], None], ...] = (
    depthwise_ties_nothing,
    concat_does_not_offset,
    sigmoid_keeps_zero,
    shifts_keep_zero,
    addition_ties_nothing,
    bias_is_not_masked,
    graph_outputs_are_not_pinned,
    split_sizes_are_not_counted,
    one_channel_off,
    gathers_are_not_renumbered,
    a_rule_raises,
    a_reason_is_lost,
)


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    assert found_within(300) is not None


def test_without_a_fault_none_is_found() -> None:
    assert found_within(60) is None
