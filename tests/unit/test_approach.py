"""From scores and a latency model to a plan that was measured: ladders, charges, and the loop that corrects.

The device is one on paper: a function from widths to milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeslim.bench.profile import (
    Timed,
    Widths,
    WidthSpace,
)
from edgeslim.bench.result import Speedup
from edgeslim.errors import BudgetError
from edgeslim.exporter.cost import count_macs, count_parameters, layer_costs
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.trainer.budget.approach import NEAR, Approach, Race
from edgeslim.trainer.budget.costs import count_costs
from edgeslim.trainer.budget.counted import CountedPlans
from edgeslim.trainer.budget.ladders import by_score, ladder_of
from edgeslim.trainer.budget.programme import Charge, Ladder, Problem, Total, usage
from edgeslim.trainer.budget.targets import parse_target

from .fake_device import NETS, chain, net, without_pauses

IMAGE = (1, 3, 16, 16)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pauses(monkeypatch)


# --- ladders -------------------------------------------------------------------------------------------------

SCORE = st.one_of(st.integers(-1000, 1000).map(float), st.sampled_from([1e308, -1e308, 1e-320, math.inf, -math.inf]))


@settings(max_examples=30)
@given(st.data())
def test_ladders_hold_what_stays(data: st.DataObject) -> None:
    channels = chain(12, 8, 5)
    scores = np.array(data.draw(st.lists(SCORE, min_size=25, max_size=25)))
    units = by_score(channels, scores)
    value = dict(zip(channels.unit_labels.tolist(), scores.tolist()))
    finite = scores[np.isfinite(scores)]
    most = float(np.abs(finite).max(initial=0.0)) or 1.0
    lift = min(0.0, float(finite.min(initial=0.0)) / most)
    for family, (labels, own) in zip(channels.families, units, strict=True):
        assert sorted(labels.tolist()) == sorted(family.labels.tolist())
        raw = [value[label] for label in labels.tolist()]
        assert raw == sorted(raw, reverse=True)
        assert all(
            s == pytest.approx(r / most - lift + 1e-6) or not math.isfinite(r) for s, r in zip(own.tolist(), raw)
        )
        assert not (own[np.isfinite(own)] < 1e-6).any()
        ladder = ladder_of(own, tuple(range(1, family.width + 1)))
        stay, left = sum(r == math.inf for r in raw), sum(r > -math.inf for r in raw)
        assert ladder.widths == tuple(range(max(1, min(stay, max(left, 1))), max(left, 1) + 1))
        for width, kept in zip(ladder.widths, ladder.values):
            assert kept == pytest.approx(math.fsum(s for s in own[:width].tolist() if math.isfinite(s)))


def test_where_nothing_is_important_more_is_kept_rather_than_less() -> None:
    channels = chain(12, 8, 5)
    for scores in (np.zeros(25), np.full(25, -3.0), np.full(25, 1e-320)):
        for _, own in by_score(channels, scores):
            assert (np.diff(ladder_of(own, (1, 2, 3)).values) > 0).all()


# --- charges -------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.data(), st.sampled_from(sorted(NETS)))
def test_charges_count_what_the_compact_graph_has(data: st.DataObject, name: str) -> None:
    """For any widths and any units, exactly."""
    channels = net(name)
    space = WidthSpace(
        channels=channels,
        candidates=tuple(tuple(range(1, family.width + 1)) for family in channels.families),
        shape=IMAGE,
    )
    widths = tuple(data.draw(st.sampled_from(own)) for own in space.candidates)
    orders = [np.random.default_rng(data.draw(st.integers(0, 99))).permutation(f.labels) for f in channels.families]
    cut = space.cut(widths, orders)
    compact = remove_channels(channels.model, channels, cut)
    costs = count_costs(space, {"macs", "parameters"}, None)
    used = costs.usage(widths)
    assert used["macs"] == count_macs(compact, IMAGE)
    assert used["parameters"] == count_parameters(compact, channels.parameters)
    dense = count_macs(channels.model, IMAGE)
    assert costs.usage(space.dense)["macs"] == dense
    assert sum(cost.positions for cost in layer_costs(channels.model, IMAGE)) > 0


# --- the approach --------------------------------------------------------------------------------------------


def timed(latency_ms: float, dense_ms: float) -> Timed:
    ratio = dense_ms / latency_ms
    faster = Speedup(ratio=ratio, low=ratio, high=ratio, confidence=0.95, resamples=2000, seed=0)
    return Timed(latency_ms=latency_ms, against_first=faster)


class Bench:
    """Races plans by a formula, and remembers which."""

    def __init__(self, latency_us: Callable[[Widths], float], dense: Widths) -> None:
        self.latency_us, self.dense, self.plans = latency_us, dense, list[Widths]()

    def __call__(self, plans: Sequence[Widths]) -> tuple[float, tuple[Timed, ...]]:
        self.plans += plans
        dense_ms = self.latency_us(self.dense) / 1e3
        return dense_ms, tuple(timed(self.latency_us(widths) / 1e3, dense_ms) for widths in plans)


class Shaky:
    """The same races, in which a plan's second latency is so many times its first one."""

    def __init__(self, race: Race, second: float) -> None:
        self.race, self.second, self.seen = race, second, set[Widths]()

    def __call__(self, plans: Sequence[Widths]) -> tuple[float, tuple[Timed, ...]]:
        dense_ms, found = self.race(plans)
        factors = [self.second if widths in self.seen else 1.0 for widths in plans]
        self.seen.update(plans)
        return dense_ms, tuple(timed(one.latency_ms * by, dense_ms) for one, by in zip(found, factors, strict=True))


def approach(
    families: int,
    true_us: Callable[[Widths], float],
    target: str,
    *,
    model: float = 1.0,
    rungs: int = 8,
    limits: dict[str, float] | None = None,
    share: float = 1.0,
) -> tuple[Approach, Bench]:
    """Families of 10 to 10 * rungs channels; the model knows 1 us a channel, times `model`, and 100 us for the rest."""
    widths = tuple(range(10, 10 * rungs + 1, 10))
    ladder = Ladder(widths=widths, values=tuple(float(w) for w in widths))
    charges = tuple(
        Charge(name=f"layer {f}", outputs=Total(coefficients={f: 1}),
               costs={"latency": lambda i, o: model * o * 1.0, "macs": lambda i, o: o * 1.0})
        for f in range(families)
    )  # fmt: skip
    problem = Problem(ladders=(ladder,) * families, charges=charges, constants={"latency": 100.0}, limits=limits or {})
    (latency,) = parse_target(target)
    bench = Bench(true_us, (10 * rungs,) * families)
    dense_us = 100.0 + families * model * 10 * rungs
    counted = CountedPlans(limits=problem.limits, count=lambda widths: usage(problem, widths))
    return Approach(
        problem=problem, dense_us=dense_us, latency=latency, share=share, race=bench, counted=counted
    ), bench


def plain(widths: Widths) -> float:
    return 100.0 + sum(widths)


@pytest.mark.parametrize("target", ["latency=406us", "latency=0.406ms", "latency=0.7x"])
def test_absolute_latencies_are_microseconds_like_all_others(target: str) -> None:
    """Races are in milliseconds."""
    near, _ = approach(6, plain, target)
    assert NEAR * 406.0 <= near.run().timed.latency_ms * 1e3 <= 406.0 * (1 + 1e-9)


@settings(max_examples=40)
@given(st.floats(0.5, 2.0), st.floats(0.5, 2.0), st.floats(0.0, 400.0), st.floats(0.35, 0.95))
def test_the_loop_corrects_whatever_the_model_is_wrong_by(
    model: float, factor: float, constant: float, share: float
) -> None:
    """Every plan of 6 families is a percent or so from the next one, so the target can always be neared."""

    def true(widths: Widths) -> float:
        return constant + factor * plain(widths)

    floor = true((10,) * 6) / true((80,) * 6)
    assume(floor < share * 0.9)
    near, bench = approach(6, true, f"latency={share}x", model=model)
    raced = near.run()
    ratio = raced.timed.latency_ms / raced.dense_ms / share
    assert NEAR <= ratio <= 1.0
    assert raced.timed.latency_ms == pytest.approx(true(raced.widths) / 1e3)
    assert len(bench.plans) <= 12


@pytest.mark.parametrize("wrong", [0.7, 1.3])
def test_a_model_that_is_wrong_about_cuts_alone_is_corrected(wrong: float) -> None:
    """It knows the dense net, and errs by 30 % about all others."""
    near, _ = approach(6, lambda widths: plain(widths) * (1.0 if widths == (80,) * 6 else wrong), "latency=0.7x")
    raced = near.run()
    assert NEAR * 0.7 <= raced.timed.latency_ms / raced.dense_ms <= 0.7


def test_a_staircase_that_the_model_does_not_know() -> None:
    """Only whole steps of 40 are any faster: the best plan within the target is a step, and found."""
    near, _ = approach(2, lambda widths: 50.0 + sum(math.ceil(w / 40) * 40 for w in widths), "latency=0.7x")
    raced = near.run()
    assert raced.timed.latency_ms * 1e3 <= 0.7 * 210
    assert raced.timed.latency_ms * 1e3 == pytest.approx(130.0)


@pytest.mark.parametrize("target", ["latency=1x", "latency=3x", "latency=10s"])
def test_a_dense_net_that_meets_the_target_stays(target: str) -> None:
    near, bench = approach(3, plain, target)
    assert near.run().widths == (80, 80, 80)
    assert bench.plans == [(80, 80, 80)]


@pytest.mark.parametrize(("target", "share"), [("latency=0.05x", 1.0), ("latency=10us", 1.0), ("latency=0.01x", 0.7)])
def test_out_of_reach_says_what_is_within(target: str, share: float) -> None:
    near, _ = approach(3, plain, target, share=share)
    with pytest.raises(BudgetError) as caught:
        near.run()
    assert "cannot be reached" in caught.value.message and "takes 0.13 ms, 0.382" in caught.value.message
    assert "0.34 ms" in caught.value.message
    asked = caught.value.hint.split("ask for ")[1].split(" ")[0]
    reached, _ = approach(3, plain, asked)
    assert reached.run().timed.latency_ms * 1e3 <= 0.39 * 340


def test_a_part_of_the_way_is_neared_as_the_whole_is() -> None:
    near, _ = approach(6, plain, "latency=0.49x", share=0.5)
    raced = near.run()
    assert NEAR * 0.7 <= raced.timed.latency_ms / raced.dense_ms <= 0.7 + 1e-12


def test_other_limits_bind_too() -> None:
    """A loose latency and few MACs: within both, and the latency is not used up for nothing."""
    near, bench = approach(3, plain, "latency=0.9x", limits={"macs": 120.0})
    raced = near.run()
    assert sum(raced.widths) == 120
    assert len(bench.plans) <= 6
    tight, _ = approach(3, plain, "latency=0.6x", limits={"macs": 10_000.0})
    assert NEAR * 0.6 <= (raced := tight.run()).timed.latency_ms / raced.dense_ms <= 0.6


def test_a_dense_net_that_is_fast_enough_is_cut_for_its_other_limits() -> None:
    near, _ = approach(3, plain, "latency=2x", limits={"macs": 120.0})
    assert sum(near.run().widths) == 120


def test_a_plan_that_is_slower_than_the_dense_net_is_no_plan() -> None:
    """The target would allow it."""
    near, _ = approach(3, lambda widths: 340.0 + 240.0 - sum(widths), "latency=5x", limits={"macs": 120.0})
    with pytest.raises(BudgetError, match="no plan within macs is faster than the dense net") as caught:
        near.run()
    assert "does not pay" in caught.value.hint


def test_a_good_plan_is_not_lost_to_a_correction_that_asks_too_much() -> None:
    """The first plan is too fast, the second too slow, and between them there is none."""
    near, bench = approach(1, lambda widths: 100.0 + (200.0 if widths[0] > 20 else widths[0]), "latency=0.7x",
                           limits={"macs": 70.0})  # fmt: skip
    assert near.run().widths == (20,)
    assert len(bench.plans) <= 7


@pytest.mark.parametrize(("second", "width"), [(1.0, 30), (0.9, 30), (1.004, 30), (1.01, 20)])
def test_a_plan_at_the_edge_of_the_target_is_measured_twice(second: float, width: int) -> None:
    """One plan takes 99.5 % of the target, the next one 60 %."""
    true = {10: 100.0, 20: 120.0, 30: 199.0, 40: 400.0}
    near, _ = approach(1, lambda widths: true[widths[0]], "latency=0.5x", rungs=4)
    raced = replace(near, race=Shaky(near.race, second)).run()
    assert raced.widths == (width,)
    slower = max(1.0, second) if width == 30 else 1.0
    assert raced.timed.latency_ms == pytest.approx(true[width] * slower / 1e3)


def test_a_cut_that_a_race_says_buys_nothing_is_taken_back() -> None:
    """By the model family 0 costs a percent. In a race its widest net is the faster one."""
    ladders = (
        Ladder(widths=(10, 20), values=(1.0, 1.1)),
        Ladder(widths=(10, 20, 30, 40), values=(10.0, 20.0, 30.0, 40.0)),
    )
    charges = (
        Charge(name="small", outputs=Total(coefficients={0: 1}), costs={"latency": lambda i, o: o * 0.1}),
        Charge(name="large", outputs=Total(coefficients={1: 1}), costs={"latency": lambda i, o: o * 5.0}),
    )
    problem = Problem(ladders=ladders, charges=charges)
    (latency,) = parse_target("latency=0.777x")

    def planned(widths: Widths) -> float:
        return widths[1] * 5.0 + 0.1 * widths[0]

    def true(widths: Widths) -> float:
        return widths[1] * 5.0 + (0.0 if widths[0] == 20 else 0.2)

    def near(race: Race) -> Approach:
        counted = CountedPlans(limits={}, count=lambda _: {})
        return Approach(problem=problem, dense_us=202.0, latency=latency, share=1.0, race=race, counted=counted)

    honest = near(Bench(planned, (20, 40))).run()
    assert honest.widths == (10, 30) and honest.undone == {}
    raced = near(Bench(true, (20, 40))).run()
    assert raced.widths == (20, 30) and raced.undone == {0: (10, 20)}
    assert raced.timed.latency_ms == pytest.approx(true(raced.widths) / 1e3)
