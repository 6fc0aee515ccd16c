"""A target on a device: what may be written, what is planned for it, and that what comes out was measured to meet it.

The device is one on paper (`fake_device`), so every promise can be held against the best of all plans.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeslim.bench.profile import (
    CollectOptions,
    DeviceProfile,
    Place,
    Step,
    Timed,
    Widths,
    WidthSpace,
    candidate_widths,
    open_profile,
)
from edgeslim.bench.result import Speedup
from edgeslim.errors import BudgetError, ConfigError, DeviceError
from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.cost import count_macs, count_parameters, layer_costs
from edgeslim.exporter.memory import estimate_memory, shipped_graph
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.progress import Silent
from edgeslim.trainer.budget import WidthLimits, parse_wish
from edgeslim.trainer.budget.approach import AIM, NEAR, Approach
from edgeslim.trainer.budget.costs import count_costs
from edgeslim.trainer.budget.ladders import by_score, ladder_of
from edgeslim.trainer.budget.memo import FileMemo, Memo, NoMemo
from edgeslim.trainer.budget.programme import Charge, Ladder, Problem, Total
from edgeslim.trainer.budget.reached import Reached
from edgeslim.trainer.budget.target import Target
from edgeslim.trainer.budget.targets import RESOURCES, Limit, amount_in_words, parse_target
from edgeslim.trainer.recipe import MacsBudget
from edgeslim.trainer.recipe_target import TargetBudget

from .fake_device import CHAIN, FakeObserver, analysed, chain, fingerprint, pieces, place_of, residual, without_pauses

IMAGE = (1, 3, 16, 16)
OPTIONS = CollectOptions(nets=24, seconds=0.01)
NETS: dict[str, Callable[[], ChannelMap]] = {"chain": chain, "residual": residual, "pieces": pieces}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pauses(monkeypatch)


# --- words ---------------------------------------------------------------------------------------------------

AMOUNTS = st.floats(1e-9, 1e15)
LIMITS = st.one_of(
    st.builds(Limit, resource=st.sampled_from(RESOURCES), amount=AMOUNTS, relative=st.just(True)),
    st.builds(Limit, resource=st.sampled_from(RESOURCES), amount=st.floats(1.0, 1e15), relative=st.just(False)),
    st.builds(Limit, resource=st.sampled_from(["latency", "memory", "file"]), amount=AMOUNTS, relative=st.just(False)),
)


@given(LIMITS)
def test_limits_survive_their_own_words(limit: Limit) -> None:
    assert parse_target(str(limit)) == (limit,)


@given(st.lists(LIMITS, min_size=1, unique_by=lambda limit: limit.resource))
def test_targets_survive_their_own_words(limits: list[Limit]) -> None:
    assert parse_target(", ".join(map(str, limits))) == tuple(limits)


@given(LIMITS, st.floats(1e-3, 1e12), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_part_of_the_way(limit: Limit, dense: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert limit.at(dense, low) >= limit.at(dense, high) * (1 - 1e-12)
    assert limit.at(dense, 0.0) == max(dense, limit.at(dense))
    assert limit.at(dense) == pytest.approx(limit.amount * dense if limit.relative else limit.amount)
    assert limit.at(dense, low) >= min(dense, limit.at(dense)) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("text", "resource", "amount", "relative"),
    [
        ("latency=8ms", "latency", 8000.0, False),
        ("latency <= 8.5 ms", "latency", 8500.0, False),
        ("latency<0.008s", "latency", 8000.0, False),
        ("latency=.5x", "latency", 0.5, True),
        ("latency=2x", "latency", 2.0, True),
        ("macs=300M", "macs", 3e8, False),
        ("macs=0.5", "macs", 0.5, True),
        ("parameters<1.5M", "parameters", 1.5e6, False),
        ("memory<64MiB", "memory", 64 * 2.0**20, False),
        ("file=250kB", "file", 250e3, False),
    ],
)
def test_what_may_be_written(text: str, resource: str, amount: float, relative: bool) -> None:
    (limit,) = parse_target(text)
    assert (limit.resource, limit.amount, limit.relative) == (resource, pytest.approx(amount), relative)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "target is ''"),
        ("  ", "target is"),
        (None, "target is None"),
        (0.5, "target is 0.5"),
        ("latency=", "'latency=' is not understood"),
        ("latency", "'latency' is not understood"),
        ("=8ms", "is not understood"),
        ("latency=-3ms", "'latency=-3ms' is not understood"),
        ("latency=0ms", "leaves nothing"),
        ("latency=0x", "leaves nothing"),
        ("latency=8", "the unit of latency is 'missing'"),
        ("latency=0.5", "the unit of latency is 'missing'"),
        ("latency=8MB", "the unit of latency is 'MB'"),
        ("memory=8ms", "the unit of memory is 'ms'"),
        ("speed=2x", "there is no resource 'speed'"),
        ("latency=8ms,latency=9ms", "limits latency twice"),
        ("latency=8ms,", "'' is not understood"),
        (",", "'' is not understood"),
        ("latency=8ms;macs=1M", "is not understood"),
        ("latency>8ms", "is not understood"),
        ("latency=nan", "is not understood"),
        ("latency=nanx", "is not understood"),
        ("latency=infx", "is not understood"),
        ("latency=1e3ms", "is not understood"),
        ("latency=8,5ms", "unit of latency"),
        ("latency=٨ms", "is not understood"),
        ("latency=8µs", "is not understood"),
        ("ｌatency=8ms", "is not understood"),
        ("LATENCY=8ms", "is not understood"),
        ("latency=" + "9" * 400 + "ms", "too large a number"),
        ("macs=" + "9" * 308 + "G", "too large a number"),
        ("latency=8ms\0", "is not understood"),
    ],
)
def test_what_may_not_be_written(text: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target(text)
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["latency=", "latency=-3ms", "latency=8", "speed=2x", "latency=8ms,latency=9ms"])
def test_recipes_say_what_is_wrong_with_a_target(text: str) -> None:
    with pytest.raises(ValueError, match=r"target .*write for example|choose from|say it once"):
        TargetBudget(name="target", target=text)


def test_a_wish_is_a_ratio_or_a_target() -> None:
    wish = parse_wish(None, "latency=8ms,memory<64MB", device="cpu:2", profile="here", allow_foreign_profile=True)
    assert isinstance(wish, TargetBudget)
    assert (wish.device, wish.profile, wish.allow_foreign_profile, wish.min_share) == (
        "cpu:2",
        Path("here"),
        True,
        0.25,
    )
    assert isinstance(parse_wish(None, "macs=0.5x"), MacsBudget)
    assert isinstance(parse_wish(None, "macs=1M"), TargetBudget)
    neither, both, loose = (None, None, None), (0.5, "macs=0.5x", None), (None, "macs=1.5x", None)
    shares = [(None, "latency=8ms", 1.0), (None, "latency=8ms", math.nan), (0.5, None, 0.5)]
    for ratio, target, share in (neither, both, loose, *shares):
        with pytest.raises(ConfigError):
            parse_wish(ratio, target, share)


@pytest.mark.parametrize(
    ("resource", "amount", "words"),
    [
        ("latency", 8250.0, "8.25 ms"),
        ("memory", 1.5e6, "1.5 MB"),
        ("macs", 2581000.0, "2.581 M"),
        ("file", 12.0, "12 B"),
        ("parameters", 999.0, "999"),
        ("macs", 3.2e9, "3.2 G"),
    ],
)
def test_amounts_in_words(resource: str, amount: float, words: str) -> None:
    assert amount_in_words(resource, amount) == words


# --- ladders -------------------------------------------------------------------------------------------------

SCORE = st.one_of(st.integers(-1000, 1000).map(float), st.just(math.inf), st.just(-math.inf))


@settings(max_examples=30)
@given(st.data())
def test_ladders_hold_what_stays(data: st.DataObject) -> None:
    channels = chain(12, 8, 5)
    scores = np.array(data.draw(st.lists(SCORE, min_size=25, max_size=25)))
    units = by_score(channels, scores)
    value = dict(zip(channels.unit_labels.tolist(), scores.tolist()))
    finite = scores[np.isfinite(scores)]
    lift = min(0.0, float(finite.min(initial=0.0)))
    for family, (labels, own) in zip(channels.families, units, strict=True):
        assert sorted(labels.tolist()) == sorted(family.labels.tolist())
        raw = [value[label] for label in labels.tolist()]
        assert raw == sorted(raw, reverse=True)
        assert all(s == r - lift or not math.isfinite(r) for s, r in zip(own.tolist(), raw))
        assert not (own[np.isfinite(own)] < 0).any()
        ladder = ladder_of(own, tuple(range(1, family.width + 1)))
        stay, left = sum(r == math.inf for r in raw), sum(r > -math.inf for r in raw)
        assert ladder.widths == tuple(range(max(1, min(stay, max(left, 1))), max(left, 1) + 1))
        for width, kept in zip(ladder.widths, ladder.values):
            assert kept == pytest.approx(math.fsum(s for s in own[:width].tolist() if math.isfinite(s)))


# --- charges -------------------------------------------------------------------------------------------------


@functools.cache
def net(name: str) -> ChannelMap:
    return NETS[name]()


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
    return Approach(problem=problem, latency=latency, share=share, race=bench), bench


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

    honest = Approach(problem=problem, latency=latency, share=1.0, race=Bench(planned, (20, 40))).run()
    assert honest.widths == (10, 30) and honest.undone == {}
    raced = Approach(problem=problem, latency=latency, share=1.0, race=Bench(true, (20, 40))).run()
    assert raced.widths == (20, 30) and raced.undone == {0: (10, 20)}
    assert raced.timed.latency_ms == pytest.approx(true(raced.widths) / 1e3)


# --- the whole of it -----------------------------------------------------------------------------------------


def target_of(
    profile: DeviceProfile | None,
    text: str,
    *,
    channels: ChannelMap | None = None,
    observer: FakeObserver | None = None,
    memo: Memo | None = None,
    part: float = 1.0,
    foreign: bool = False,
    min_share: float = 0.25,
    progress: Silent | None = None,
) -> Target:
    observer = observer or FakeObserver()
    place = None if profile is None else place_of(profile, observer)
    if place is not None and foreign:
        place = Place(fingerprint=place.fingerprint, profile=place.profile, observer=None)
    return Target(
        limits=parse_target(text),
        text=text,
        channels=channels or net("residual"),
        shape=IMAGE,
        place=place,
        widths=WidthLimits(multiple=1, minimum=1),
        min_share=min_share,
        progress=progress or Silent(),
        memo=memo or NoMemo(),
        part=part,
        options=OPTIONS,
    )


def random_scores(channels: ChannelMap, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random(len(channels.unit_labels))


@pytest.fixture
def profile(tmp_path: Path) -> DeviceProfile:
    return open_profile(tmp_path / "profile.sqlite")


@functools.cache
def latencies(name: str) -> dict[Widths, float]:
    """All plans of a net with what each takes on the device, in us."""
    channels, observer = net(name), FakeObserver()
    candidates = candidate_widths(channels.families, Step(multiple=16), min_share=0.25)
    space = WidthSpace(channels=channels, candidates=candidates, shape=IMAGE)
    return {w: observer.whole(space.graph(space.cut(w)), space.feeds) for w in itertools.product(*candidates)}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NETS))
@pytest.mark.parametrize("share", [0.8, 0.6, 0.45])
def test_no_plan_within_the_target_keeps_more(profile: DeviceProfile, name: str, share: float) -> None:
    """Against all plans there are, up to what the loop leaves between its aim and the target."""
    channels = net(name)
    scores = random_scores(channels)
    target = target_of(profile, f"latency={share}x", channels=channels)
    cut = target.select(channels, scores)
    every = latencies(name)
    widths, dense = target.space.widths(cut), every[target.space.dense]
    ladders = [ladder_of(own, target.space.candidates[i]) for i, (_, own) in enumerate(by_score(channels, scores))]

    def kept(plan: Widths) -> float:
        return sum(ladder.values[ladder.rung(width)] for ladder, width in zip(ladders, plan))

    assert every[widths] <= share * dense
    aimed = max(kept(plan) for plan, us in every.items() if us <= AIM * NEAR * share * dense)
    assert kept(widths) >= aimed - 1e-9
    wider = [p for p in every if p != widths and all(a >= b for a, b in zip(p, widths))]
    assert all(every[plan] > every[widths] for plan in wider), "a wider plan is as fast"
    assert target.reached is not None and target.reached.ratio == pytest.approx(every[widths] / dense)
    assert sum(1 for label in channels.unit_labels.tolist() if label not in cut) == sum(widths)
    for labels, own in by_score(channels, scores):  # the best stay
        gone = np.isin(labels, list(cut))
        assert own[~gone].min() >= own[gone].max(initial=-np.inf)


def test_what_is_reached_is_what_was_measured(profile: DeviceProfile) -> None:
    observer, progress = FakeObserver(), Silent()
    target = target_of(profile, "latency=0.5x,memory<0.9x,file<1MB", observer=observer, progress=progress)
    cut = target.select(target.channels, random_scores(target.channels))
    found, space = target.reached, target.space
    assert found is not None
    plan, dense = (observer.whole(space.graph(c), space.feeds) / 1e3 for c in (cut, frozenset[int]()))
    assert (found.latency_ms, found.dense_ms) == (pytest.approx(plan), pytest.approx(dense))
    assert found.ratio == pytest.approx(plan / dense) and found.ratio_low is not None and found.ratio_high is not None
    assert found.ratio_low < found.ratio < found.ratio_high
    assert found.predicted_ms == pytest.approx(plan, rel=1e-6)
    assert not found.foreign and not found.untouched and found.device_digest == observer.fingerprint.digest
    assert set(found.usage) == {"memory", "file"}
    compact = shipped_graph(target.channels, cut, frames=True)
    assert found.usage["memory"] == estimate_memory(compact, (1, 16, 16, 3)).arena_bytes
    assert found.usage["memory"] <= 0.9 * target.costs.usage(space.dense)["memory"]
    assert str(found) in progress.notes and "of the dense net's" in str(found) and "kB" in str(found)
    assert any(
        note.startswith("latency model: 24 plans") or "plans that it had not seen" in note for note in progress.notes
    )
    assert found.origin == {"target": str(found), "device_profile": observer.fingerprint.digest}


@pytest.mark.parametrize("text", ["latency=1x", "latency=50x", "latency=1s", "latency=1x,macs=2x,file<1GB"])
def test_a_target_that_the_dense_net_meets_cuts_nothing_and_says_so(profile: DeviceProfile, text: str) -> None:
    target = target_of(profile, text)
    assert target.select(target.channels, random_scores(target.channels)) == frozenset()
    assert target.reached is not None and target.reached.untouched
    assert "nothing was cut" in str(target.reached)


@pytest.mark.parametrize("text", ["latency=0.01x", "latency=1us", "latency=0.01x,macs=0.9x"])
def test_a_target_below_an_empty_net_says_the_fastest(profile: DeviceProfile, text: str) -> None:
    target = target_of(profile, text)
    with pytest.raises(BudgetError, match="cannot be reached") as caught:
        target.select(target.channels, random_scores(target.channels))
    fastest, dense = min(latencies("residual").values()), max(latencies("residual").values())
    assert f"{fastest / 1e3:.3g} ms" in caught.value.message and f"{dense / 1e3:.3g} ms" in caught.value.message
    asked = next(word for word in caught.value.hint.replace(",", " ").split() if word.startswith("latency="))
    (limit,) = parse_target(asked)
    assert fastest / dense <= limit.amount <= fastest / dense * 1.05 + 0.01
    reachable = target_of(profile, asked)
    reachable.select(reachable.channels, random_scores(reachable.channels))
    assert reachable.reached is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("macs=0.01x", "macs of "),
        ("memory=10B", "memory of 10 B is asked for"),
        ("macs=0.01x,parameters=0.5x", "macs of "),
        ("latency=0.5x,macs=0.01x", "macs of "),
    ],
)
def test_limits_that_no_widths_meet_are_named_with_their_least(profile: DeviceProfile, text: str, words: str) -> None:
    target = target_of(profile, text)
    with pytest.raises(BudgetError) as caught:
        target.select(target.channels, random_scores(target.channels))
    assert words in caught.value.message and "of the dense net's" in caught.value.message
    assert "parameters of" not in caught.value.message
    asked = caught.value.hint.split("ask for ")[1].split(" or more")[0]
    reachable = target_of(profile, asked)
    reachable.select(reachable.channels, random_scores(reachable.channels))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [0.75, 1.3])
@pytest.mark.parametrize("share", [0.7, 0.5])
def test_a_profile_that_is_wrong_by_a_third_is_corrected(profile: DeviceProfile, wrong: float, share: float) -> None:
    """Planted: every pruned net takes 1.3 times what its operators say, the dense one does not."""
    observer = FakeObserver()
    dense = target_of(profile, "latency=0.5x", observer=observer).space.graph(frozenset())
    observer.race_factor = lambda graph: 1.0 if graph == dense else wrong
    target = target_of(profile, f"latency={share}x", observer=observer)
    target.select(target.channels, random_scores(target.channels))
    assert target.reached is not None and target.reached.ratio is not None and target.reached.predicted_ms is not None
    assert target.reached.ratio <= share
    assert target.reached.latency_ms == pytest.approx(target.reached.predicted_ms * wrong, rel=1e-6)
    every = latencies("residual")
    fit = [us for us in every.values() if us * wrong <= AIM * NEAR * share * max(every.values())]
    assert target.reached.latency_ms * 1e3 >= 0.75 * max(fit) * wrong


@pytest.mark.slow
@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_noise_is_lived_with(seed: int) -> None:
    observer = FakeObserver(noise=0.01, seed=seed)
    with open_profile(":memory:") as profile:
        target = target_of(profile, "latency=0.6x", observer=observer)
        cut = target.select(target.channels, random_scores(target.channels))
        true = latencies("residual")
    assert true[target.space.widths(cut)] <= 0.6 * max(true.values()) * 1.05


def test_a_race_that_never_settles_decides_nothing(profile: DeviceProfile) -> None:
    target = target_of(profile, "latency=0.5x", observer=FakeObserver(settles=False))
    with pytest.raises(DeviceError, match="do not settle") as caught:
        target.select(target.channels, random_scores(target.channels))
    assert "stop other programs" in caught.value.hint and target.reached is None


def test_a_wider_plan_that_is_faster_is_taken_and_the_cut_reported(profile: DeviceProfile) -> None:
    """Planted: by the profile the third layer's cut saves a percent, by a race it costs one."""
    text = CHAIN.replace("e = Conv <pads = [1, 1, 1, 1]>", "e = Conv")
    shapes = {"first": (64, 3, 3, 3), "second": (64, 64, 3, 3), "third": (32, 64, 1, 1), "head": (5, 32)}
    channels, observer, progress = analysed(text, shapes), FakeObserver(), Silent()
    space = target_of(profile, "latency=0.9x", channels=channels, observer=observer).space
    assert space.candidates[2] == (16, 32)

    def us(widths: Widths) -> float:
        return observer.whole(space.graph(space.cut(widths)), space.feeds)

    narrow = {space.graph(space.cut(widths)) for widths in itertools.product(*space.candidates) if widths[2] == 16}
    target_share = us((48, 64, 16)) * 1.0001 / (AIM * us(space.dense))
    scores = np.concatenate([np.ones(128), np.full(32, 0.05)])
    for factor, undone in ((1.0, ()), (1.02, ("third from 16 to 32",))):
        observer.race_factor = lambda graph, slower=factor: slower if graph in narrow else 1.0  # type: ignore[misc]
        target = target_of(profile, f"latency={target_share}x", channels=channels, observer=observer, progress=progress)
        widths = space.widths(target.select(channels, scores))
        assert target.reached is not None and target.reached.undone == undone
        assert widths[2] == (32 if undone else 16)
        assert target.reached.latency_ms == pytest.approx(us(widths) / 1e3)
    assert "taken back, for it made nothing faster: third from 16 to 32" in progress.notes


def test_levels_are_a_part_of_the_way(profile: DeviceProfile) -> None:
    half = target_of(profile, "latency=0.36x", part=0.5)
    half.select(half.channels, random_scores(half.channels))
    assert half.reached is not None and half.reached.ratio is not None
    assert NEAR * 0.6 <= half.reached.ratio <= 0.6
    assert str(half.reached).startswith("0.5 of the way to latency=0.36x on ")


def test_rounds_cut_further_and_keep_what_is_gone(profile: DeviceProfile) -> None:
    channels, cut = net("residual"), frozenset[int]()
    target = target_of(profile, "latency=0.4x", channels=channels)
    for number in (1, 2, 3):
        scores = random_scores(channels, seed=number)  # another opinion in every round
        scores[np.isin(channels.unit_labels, list(cut))] = -np.inf
        scores[channels.unit_labels == channels.families[0].labels[3]] = np.inf
        now = target.select(channels, scores, share=number / 3)
        assert cut <= now and channels.families[0].labels[3] not in now
        assert target.reached is not None and target.reached.ratio is not None
        assert target.reached.ratio <= 0.4 ** (number / 3)
        cut = now


# --- without a device ----------------------------------------------------------------------------------------


def test_limits_that_are_counted_need_no_device() -> None:
    target = target_of(None, "macs=0.5x,memory<0.8x,parameters=0.6x,file<0.9x")
    cut = target.select(target.channels, random_scores(target.channels))
    used, dense = (target.costs.usage(target.space.widths(c)) for c in (cut, frozenset[int]()))
    for name, most in (("macs", 0.5), ("memory", 0.8), ("parameters", 0.6), ("file", 0.9)):
        assert used[name] <= most * dense[name]
    assert used["macs"] == count_macs(remove_channels(target.channels.model, target.channels, cut), IMAGE)
    assert target.reached is not None
    block = estimate_memory(shipped_graph(target.channels, cut), (1, 16, 16, 3)).arena_bytes
    assert target.reached.usage == {**used, "memory": block} and block <= 0.8 * dense["memory"]
    assert " on " not in str(target.reached) and target.reached.origin == {"target": str(target.reached)}


def test_cuts_that_save_no_memory_are_taken_back_and_reported() -> None:
    """Two families at once are over the peak; what is narrowed beside it buys nothing."""
    progress = Silent()
    target = target_of(None, "memory<0.99x", progress=progress)
    scores = np.ones(len(target.channels.unit_labels)) * 1e-9
    cut = target.select(target.channels, scores)
    widths, problem = target.space.widths(cut), target.costs
    for family, own in enumerate(target.space.candidates):
        for wider in (w for w in own if w > widths[family]):
            plan = (*widths[:family], wider, *widths[family + 1 :])
            assert problem.usage(plan)["memory"] > problem.usage(widths)["memory"]
    assert target.reached is not None
    assert [f"taken back, for it made nothing faster: {own}" for own in target.reached.undone] == [
        note for note in progress.notes if note.startswith("taken back")
    ]


def test_a_device_that_is_not_here_is_planned_for_by_its_profile_alone(profile: DeviceProfile) -> None:
    here = target_of(profile, "latency=0.5x")
    here.select(here.channels, random_scores(here.channels))
    away = FakeObserver()
    target = target_of(profile, "latency=0.5x", observer=away, foreign=True)
    cut = target.select(target.channels, random_scores(target.channels))
    found = target.reached
    assert (away.observed, away.structures, away.races) == (0, 0, 0)
    assert found is not None and found.foreign and found.latency_ms is None and found.ratio is None
    every = latencies("residual")
    assert found.predicted_ms == pytest.approx(every[target.space.widths(cut)] / 1e3, rel=1e-6)
    assert found.predicted_ms * 1e3 <= 0.5 * max(every.values())
    assert "predicted, not measured" in str(found)
    assert "nothing was timed" in found.origin["foreign_profile"]
    with pytest.raises(BudgetError, match=r"latency of 0\.\d+ ms is asked for, no allowed widths need less than"):
        far = target_of(profile, "latency=0.01x", foreign=True)
        far.select(far.channels, random_scores(far.channels))
    for loose in ("latency=3x", "latency=1s"):
        idle = target_of(profile, loose, foreign=True)
        assert idle.select(idle.channels, random_scores(idle.channels)) == frozenset()


def test_a_foreign_profile_that_knows_another_net_is_not_enough(profile: DeviceProfile) -> None:
    here = target_of(profile, "latency=0.5x", channels=net("chain"))
    here.select(here.channels, random_scores(here.channels))
    target = target_of(profile, "latency=0.5x", foreign=True)
    with pytest.raises(DeviceError, match="knows 0 of the 24 plans of this net") as caught:
        target.select(target.channels, random_scores(target.channels))
    assert "edgeslim profile measure" in caught.value.hint


# --- memory of a run -----------------------------------------------------------------------------------------


def test_a_run_that_is_resumed_has_the_same_plan(tmp_path: Path) -> None:
    """Though its profile is lost and the device another day is another one: nothing is measured for a plan that is."""
    memo, plans = FileMemo(tmp_path / "plans.json"), []
    first = FakeObserver(noise=0.02, seed=1)
    for number, observer in enumerate((first, FakeObserver(noise=0.3, seed=9, block=8, settles=False))):
        with open_profile(tmp_path / f"{number}.sqlite") as profile:
            target = target_of(profile, "latency=0.5x", observer=observer, memo=memo)
            plans.append((target.select(target.channels, random_scores(target.channels)), target.reached))
    assert plans[0] == plans[1] and plans[0][1] is not None
    assert (observer.observed, observer.races) == (0, 0)
    assert memo.of_cut(plans[0][0]) == plans[0][1] and memo.of_cut(frozenset({-1})) is None


@pytest.mark.slow
def test_other_questions_have_other_answers(tmp_path: Path) -> None:
    memo = FileMemo(tmp_path / "plans.json")
    asked = 0
    with open_profile(tmp_path / "p.sqlite") as profile:
        for options in ({}, {"part": 0.5}, {"min_share": 0.5}, {"foreign": True}, {"channels": net("chain")},
                        {"observer": FakeObserver(fingerprint=fingerprint("9"))}):  # fmt: skip
            for text in ("latency=0.6x", "latency=0.7x"):
                target = target_of(profile, text, memo=memo, **options)  # type: ignore[arg-type]
                target.select(target.channels, random_scores(target.channels))
                asked += 1
                assert len(json.loads((tmp_path / "plans.json").read_text())["plans"]) == asked
        target = target_of(profile, "latency=0.6x", memo=memo)
        target.select(target.channels, random_scores(target.channels, seed=5))
        target.select(target.channels, random_scores(target.channels), share=0.5)
    assert len(json.loads((tmp_path / "plans.json").read_text())["plans"]) == asked + 1  # 0.5 is the level above


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1, "plans": {"k": {"cut": ["a"], "reached": null}}}', "\0"])
def test_a_memory_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    memo = FileMemo(tmp_path / "runs" / "plans.json")
    memo.path.parent.mkdir()
    memo.path.write_text(text)
    assert memo.recall("k") is None
    reached = Reached(target="latency=1x", device="", device_digest="", foreign=False)
    memo.keep("k", frozenset({3, 1}), reached)
    assert memo.recall("k") == (frozenset({1, 3}), reached)


def test_the_device_on_paper_is_one_that_onnx_agrees_with() -> None:
    """The tests' own foundation: shapes are inferred for every value, and layers are counted once."""
    space = WidthSpace(channels=net("residual"), candidates=((32,), (48,), (64,), (32,)), shape=IMAGE)
    graph = space.graph(frozenset())
    pairs = FakeObserver().timed(graph, space.feeds)
    assert len(pairs) == len(onnx.load_model_from_string(graph).graph.node)
    assert all(min(shape, default=1) > 0 for node, _ in pairs for shape in node.operator.outputs)
    assert sum(us > 5.0 for _, us in pairs) == 6
