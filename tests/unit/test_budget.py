"""Budgets: which widths they choose, and that the work they count is the work of the graph that is really cut."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeslim.errors import BudgetError
from edgeslim.exporter.channels import ChannelMap, analyze
from edgeslim.exporter.channels.families import Family, Place
from edgeslim.exporter.cost import count_macs, layer_costs
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.exporter.plan import plan_from_cut
from edgeslim.trainer.budget import Macs, Ratio, WidthLimits, build_budget
from edgeslim.trainer.recipe import MacsBudget, RatioBudget

NET = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[n, 3, 16, 16] x) => (float[n, 5] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, stem)
  b = Relu (a)
  c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (b, middle)
  d = Relu (c)
  e = Conv <pads = [1, 1, 1, 1], group = 20> (d, depthwise)
  f = ConvTranspose <strides = [2, 2]> (e, up)
  g = Concat <axis = 1> (b, f)
  h = Relu (g)
  i = GlobalAveragePool (h)
  j = Flatten (i)
  k = Gemm (j, hidden)
  l = Relu (k)
  m = Transpose <perm = [1, 0]> (head)
  y = MatMul (l, m)
}
"""
WIDTHS = {"stem": 12, "middle": 20, "up": 9, "hidden": 33}
IMAGE = (1, 3, 16, 16)


@functools.cache
def net() -> ChannelMap:
    """Every kind of weighted layer, with widths that are no multiples of anything."""
    stem, middle, up, hidden = WIDTHS.values()
    rng = np.random.default_rng(0)
    shapes = {
        "stem": (stem, 3, 3, 3),
        "middle": (middle, stem, 3, 3),
        "depthwise": (middle, 1, 3, 3),
        "up": (middle, up, 2, 2),
        "hidden": (stem + up, hidden),
        "head": (5, hidden),
    }
    proto = onnx.parser.parse_model(NET)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name) for name, shape in shapes.items()
    )
    return analyze(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))


def kept(channels: ChannelMap, cut: frozenset[int]) -> dict[str, int]:
    return {f.name: len(f.keep) for f in plan_from_cut(channels, cut).families}


def dense_macs() -> int:
    return count_macs(net().model, IMAGE)


LIMITS = st.builds(lambda m, n: WidthLimits(multiple=m, minimum=n), st.integers(1, 9), st.integers(0, 12))
SCORES = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random(sum(WIDTHS.values())))


def test_the_net_is_what_the_tests_assume() -> None:
    assert {f.name: f.width for f in net().families} == WIDTHS
    assert dense_macs() == 12 * 27 * 256 + 20 * 12 * 9 * 64 + 20 * 9 * 64 + 20 * 9 * 4 * 64 + 21 * 33 + 33 * 5


@given(LIMITS, st.floats(0.0, 64.0), st.integers(1, 64))
def test_allowed_widths(limits: WidthLimits, width: float, whole: int) -> None:
    chosen = limits.round_up(width, whole)
    assert 1 <= chosen <= whole
    assert chosen == whole or (chosen % limits.multiple == 0 and chosen >= limits.minimum)
    assert chosen == whole or chosen >= width - 1e-6
    # The nearest: the next narrower one is either too narrow for the wish or not allowed.
    below = limits.next_below(chosen)
    assert below is None or below < width + 1e-6
    if below is not None:
        assert below % limits.multiple == 0 and max(limits.minimum, 1) <= below < chosen


def test_rounding_survives_floating_point() -> None:
    limits = WidthLimits(multiple=8, minimum=8)
    assert limits.round_up(0.1 * 3 * 80, 80) == 24  # 24.000000000000004
    assert limits.round_up(24.001, 80) == 32
    assert limits.round_up(1, 4) == 4  # narrower than the minimum: stays whole
    assert WidthLimits(multiple=8, minimum=10).round_up(3, 64) == 16


@given(SCORES, LIMITS, st.floats(0.01, 0.99))
def test_ratio_keeps_the_highest_scores_of_every_family(
    scores: NDArray[np.float64], limits: WidthLimits, ratio: float
) -> None:
    channels = net()
    cut = Ratio(ratio=ratio, limits=limits).select(channels, scores)
    start = 0
    for family, (name, width) in zip(channels.families, kept(channels, cut).items()):
        own = scores[start : start + family.width]
        start += family.width
        assert width == limits.round_up((1 - ratio) * family.width, family.width), name
        stays = [u.label not in cut for u in family.units]
        assert own[stays].min() >= own[np.logical_not(stays)].max(initial=-np.inf)


@given(SCORES, st.integers(1, 6), st.floats(0.05, 0.95))
def test_rounds_of_a_ratio_nest_and_reach_it(scores: NDArray[np.float64], rounds: int, ratio: float) -> None:
    channels, budget = net(), Ratio(ratio=ratio, limits=WidthLimits(multiple=1, minimum=1))
    cuts = [budget.select(channels, scores, k / rounds) for k in range(1, rounds + 1)]
    assert all(a <= b for a, b in itertools.pairwise(cuts))
    assert cuts[-1] == budget.select(channels, scores)
    for number, cut in enumerate(cuts, start=1):  # every round keeps the same share of what the round before left
        share = (1 - ratio) ** (number / rounds)
        assert all(
            max(share * WIDTHS[n], 1) - 1e-6 <= w < share * WIDTHS[n] + 1 for n, w in kept(channels, cut).items()
        )
    assert kept(channels, cuts[-1]) == {n: max(math.ceil(round((1 - ratio) * w, 9)), 1) for n, w in WIDTHS.items()}


@settings(max_examples=25)
@given(SCORES, LIMITS, st.floats(0.1, 0.95), st.sampled_from([0.25, 0.5, 1.0]), st.floats(0.0, 0.9))
def test_macs_counts_what_the_cut_graph_does(
    scores: NDArray[np.float64], limits: WidthLimits, keep: float, share: float, min_share: float
) -> None:
    channels = net()
    budget = Macs(keep=keep, costs=layer_costs(channels.model, IMAGE), limits=limits, min_share=min_share)
    try:
        cut = budget.select(channels, scores, share)
    except BudgetError:
        assume(False)
    compact = remove_channels(channels.model, channels, cut)
    counted = count_macs(compact, IMAGE)
    assert counted <= keep**share * dense_macs()
    plan = plan_from_cut(channels, cut)
    shapes = {n: plan.shrink(n, v.const_value.numpy()).shape for n, v in weights(channels).items()}  # type: ignore[union-attr]
    assert counted == sum(cost.positions * math.prod(shapes[cost.weight]) for cost in budget.costs)
    for family in plan.families:
        width = len(family.keep)
        assert width == family.width or (width % limits.multiple == 0 and width >= limits.minimum)
        assert width >= min_share * family.width


def weights(channels: ChannelMap) -> dict[str, ir.Value]:
    return {name: value for name, value in channels.model.graph.initializers.items() if value.const_value is not None}


@settings(max_examples=10)
@given(SCORES)
def test_macs_cuts_the_lowest_scores_of_a_family(scores: NDArray[np.float64]) -> None:
    channels = net()
    limits = WidthLimits(multiple=1, minimum=1)
    cut = Macs(keep=0.4, costs=layer_costs(channels.model, IMAGE), limits=limits).select(channels, scores)
    start = 0
    for family in channels.families:
        own = scores[start : start + family.width]
        start += family.width
        stays = [u.label not in cut for u in family.units]
        assert own[stays].min() >= own[np.logical_not(stays)].max(initial=-np.inf)


@settings(max_examples=25)
@given(SCORES, LIMITS, st.floats(0.2, 0.9))
def test_macs_takes_the_steps_of_the_plain_greedy(
    scores: NDArray[np.float64], limits: WidthLimits, keep: float
) -> None:
    """The same choice as a loop over unit objects that counts the whole net for every step it could take."""
    channels = net()
    budget = Macs(keep=keep, costs=layer_costs(channels.model, IMAGE), limits=limits)
    expected = plain_greedy(channels, budget, scores)
    if expected is None:
        with pytest.raises(BudgetError):
            budget.select(channels, scores)
    else:
        assert budget.select(channels, scores) == expected


def plain_greedy(channels: ChannelMap, budget: Macs, scores: NDArray[np.float64]) -> frozenset[int] | None:
    """The cut, None where the budget is out of reach."""
    value = dict(zip(channels.unit_labels.tolist(), scores.tolist()))
    ranked = [sorted(family.units, key=lambda u: value[u.label]) for family in channels.families]
    gone = [0] * len(ranked)

    def macs(gone: list[int]) -> int:
        sizes = {name: list(v.shape.numpy()) for name, v in weights(channels).items() if v.shape is not None}
        for member in (m for units, n in zip(ranked, gone) for unit in units[:n] for m in unit.members):
            sizes[member.initializer][member.axis] -= len(member.indices)
        return sum(cost.positions * math.prod(sizes[cost.weight]) for cost in budget.costs)

    while macs(gone) > budget.keep * dense_macs():
        steps = []
        for index, (family, units) in enumerate(zip(channels.families, ranked)):
            width = budget.limits.in_units(family).next_below(family.width - gone[index])
            if width is not None:
                then = [*gone[:index], family.width - width, *gone[index + 1 :]]
                lost = sum(value[u.label] for u in units[gone[index] : then[index]])
                steps.append((lost / (macs(gone) - macs(then)), then))
        if not steps:
            return None
        gone = min(steps)[1]
    return frozenset(u.label for units, n in zip(ranked, gone) for u in units[:n])


def test_no_family_is_emptied_because_it_looks_cheap() -> None:
    channels = net()
    start = np.cumsum([0, *WIDTHS.values()])
    scores = np.ones(start[-1])
    scores[start[1] : start[2]] = 1e-3  # the family `middle`
    costs, limits = layer_costs(channels.model, IMAGE), WidthLimits(multiple=1, minimum=1)
    widths = [kept(channels, Macs(keep=0.4, costs=costs, limits=limits, min_share=s).select(channels, scores))["middle"]
              for s in (0.0, 0.25, 0.3)]  # fmt: skip
    assert widths == [2, 5, 6]
    with pytest.raises(BudgetError, match="cannot be reached") as caught:
        Macs(keep=0.4, costs=costs, limits=limits, min_share=0.9).select(channels, scores)
    assert "min_share" in caught.value.hint


def test_macs_prefers_what_costs_much_and_carries_little() -> None:
    channels = net()
    start = np.cumsum([0, *WIDTHS.values()])
    scores = np.ones(start[-1])
    scores[start[1] : start[2]] = 1e-3  # the family `middle`, which does most of the work
    costs = layer_costs(channels.model, IMAGE)
    cut = Macs(keep=0.6, costs=costs, limits=WidthLimits(multiple=1, minimum=1)).select(channels, scores)
    assert {n for n, w in kept(channels, cut).items() if w < WIDTHS[n]} == {"middle"}


@pytest.mark.parametrize("multiple", [1, 3])
def test_infinite_scores_stay_and_lost_channels_stay_lost(multiple: int) -> None:
    """Scores of a later round: what nobody observed is infinite, what was cut before is minus infinity."""
    channels = net()
    costs = layer_costs(channels.model, IMAGE)
    limits = WidthLimits(multiple=multiple, minimum=1)
    labels = [u.label for f in channels.families for u in f.units]
    scores = np.random.default_rng(0).random(len(labels))
    first = Macs(keep=0.3, costs=costs, limits=limits).select(channels, scores, 0.5)
    assert len(first) > 2
    again = np.array([-np.inf if label in first else s for label, s in zip(labels, scores)])
    again[[i for i, label in enumerate(labels) if label not in first][:3]] = np.inf
    for budget in (Macs(keep=0.3, costs=costs, limits=limits), Ratio(ratio=0.6, limits=limits)):
        second = budget.select(channels, again, 1.0)
        assert not {labels[i] for i in np.flatnonzero(np.isposinf(again))} & second
    assert first < Macs(keep=0.3, costs=costs, limits=limits).select(channels, again, 1.0)


def test_a_family_that_nobody_could_score_stays_whole() -> None:
    channels = net()
    scores = np.ones(sum(WIDTHS.values()))
    scores[12:32] = np.inf  # the family `middle`
    limits = WidthLimits(multiple=1, minimum=1)
    cut = Ratio(ratio=0.5, limits=limits).select(channels, scores)
    assert kept(channels, cut) == {"stem": 6, "middle": 20, "up": 5, "hidden": 17}
    costs = layer_costs(channels.model, IMAGE)
    cut = Macs(keep=0.7, costs=costs, limits=limits).select(channels, scores)
    assert kept(channels, cut)["middle"] == 20
    with pytest.raises(BudgetError, match="cannot be reached"):
        Macs(keep=0.05, costs=costs, limits=limits).select(channels, scores)


@pytest.mark.parametrize(
    ("each", "units"),
    [(1, (8, 16)), (2, (4, 8)), (3, (8, 6)), (4, (2, 4)), (8, (1, 2)), (16, (1, 1))],
)
def test_limits_are_given_in_channels(each: int, units: tuple[int, int]) -> None:
    """A unit of a grouped convolution is one index of every group."""

    def place(name: str, count: int, masked: bool) -> Place:
        owners, indices = np.zeros(count, np.int64), np.arange(count)
        return Place(initializer=name, axis=0, masked=masked, owners=owners, indices=indices)

    grouped, wider, reader = place("grouped", each, True), place("wider", 2 * each, True), place("linear", 1, False)
    family = Family(name="grouped", labels=np.zeros(1, np.int64), places=(wider, grouped, reader))
    limits = WidthLimits(multiple=8, minimum=16).in_units(family)
    assert (limits.multiple, limits.minimum) == units
    assert limits.multiple * each % 8 == 0 and limits.minimum * each >= 16


@given(SCORES, st.floats(0.0, 5.0))
def test_scores_below_zero_choose_as_the_same_scores_lifted(scores: NDArray[np.float64], depth: float) -> None:
    """A loss below zero, per MAC, would be the smaller the fewer MACs it saves."""
    channels = net()
    costs = layer_costs(channels.model, IMAGE)
    budget = Macs(keep=0.5, costs=costs, limits=WidthLimits(multiple=1, minimum=1))
    lifted = scores - scores.min()
    assert budget.select(channels, lifted - depth) == budget.select(channels, (lifted - depth) + depth)


def test_a_budget_out_of_reach_says_what_can_be_reached() -> None:
    channels = net()
    costs = layer_costs(channels.model, IMAGE)
    with pytest.raises(BudgetError, match=r"^0\.1 of the dense .* cannot be reached: .* 0\.\d+ of them") as caught:
        Macs(keep=0.1, costs=costs, limits=WidthLimits(multiple=8, minimum=8)).select(channels, np.ones(74))
    assert "ask for more than 0." in caught.value.hint and "min_width" in caught.value.hint
    assert caught.value.exit_code == 3


def test_budgets_from_a_recipe() -> None:
    limits = WidthLimits(multiple=1, minimum=1)
    ratio = build_budget(RatioBudget(name="ratio", ratio=0.5), limits, net(), IMAGE)
    assert ratio == Ratio(ratio=0.5, limits=limits)
    macs = build_budget(MacsBudget(name="macs", keep=0.5), limits, net(), IMAGE)
    assert macs == Macs(keep=0.5, costs=layer_costs(net().model, IMAGE), limits=limits, min_share=0.25)
