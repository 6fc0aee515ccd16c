"""A target on a device: what may be written, what is planned for it, and that what comes out was measured to meet it.

The device is one on paper (`fake_device`), so every promise can be held against the best of all plans.
"""

from __future__ import annotations

import functools
import itertools
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.bench.profile import (
    DeviceProfile,
    Observation,
    Step,
    Widths,
    WidthSpace,
    candidate_widths,
    open_profile,
)
from edgeslim.errors import BudgetError, DeviceError
from edgeslim.exporter.cost import count_macs
from edgeslim.exporter.memory import estimate_memory, shipped_graph
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.progress import Silent
from edgeslim.runtime.backends import Array
from edgeslim.trainer.budget.approach import AIM, NEAR
from edgeslim.trainer.budget.costs import count_plan
from edgeslim.trainer.budget.ladders import by_score, ladder_of
from edgeslim.trainer.budget.targets import parse_target

from .fake_device import (
    CHAIN,
    NETS,
    FakeObserver,
    analysed,
    fingerprint,
    net,
    without_pauses,
)
from .targets_on_paper import IMAGE, random_scores, target_of


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pauses(monkeypatch)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a device without noise knows of the net with the skips: measuring it is most of what a test takes."""
    path = tmp_path_factory.mktemp("measured") / "profile.sqlite"
    with open_profile(path) as profile:
        assert target_of(profile, "latency=0.5x").model is not None
    return path


@pytest.fixture
def profile(measured: Path, tmp_path: Path) -> DeviceProfile:
    return open_profile(shutil.copy(measured, tmp_path / "profile.sqlite"))


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


def test_a_machine_that_is_busy_while_it_races_decides_nothing(profile: DeviceProfile) -> None:
    """Its ratios are as steady as ever; only that the dense net is slow tells that they are not to be trusted."""
    calm, busy = FakeObserver(), FakeObserver(race_factor=lambda graph: 1.4)
    target_of(profile, "latency=0.5x", observer=calm).model  # noqa: B018
    target = target_of(profile, "latency=0.5x", observer=busy)
    with pytest.raises(DeviceError, match=r"the dense net takes .* now, and .* when the device was measured") as caught:
        target.select(target.channels, random_scores(target.channels))
    assert "measure a new profile" in caught.value.hint and target.reached is None and busy.races == 3
    again = iter((1.4, 1.4, 1.2, 1.2))
    passing = FakeObserver(race_factor=lambda graph: next(again, 1.0))
    target = target_of(profile, "latency=0.5x", observer=passing)
    target.select(target.channels, random_scores(target.channels))
    assert target.reached is not None and passing.races >= 2


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
    assert "taken back, for the target is met without it: third from 16 to 32" in progress.notes


def test_levels_are_a_part_of_the_way(profile: DeviceProfile) -> None:
    half = target_of(profile, "latency=0.36x", part=0.5)
    half.select(half.channels, random_scores(half.channels))
    assert half.reached is not None and half.reached.ratio is not None
    assert NEAR * 0.6 <= half.reached.ratio <= 0.6
    assert str(half.reached).startswith("0.5 of the way to latency=0.36x at 16x16 on ")


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


@pytest.mark.slow
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
    assert [f"taken back, for the target is met without it: {own}" for own in target.reached.undone] == [
        note for note in progress.notes if note.startswith("taken back")
    ]


def test_what_the_dense_net_takes_usually_was_measured(profile: DeviceProfile) -> None:
    """It takes half as long again as its parts, which no model of parts can know."""
    dense = b""

    class Odd(FakeObserver):
        def whole(self, graph: bytes, feeds: Mapping[str, Array]) -> float:
            return super().whole(graph, feeds) * (1.5 if graph == dense else 1.0)

        def observe(self, graph: bytes, feeds: Mapping[str, Array], seconds: float) -> Observation:
            seen = super().observe(graph, feeds, seconds)
            return replace(seen, latency_us=self.whole(graph, feeds))

    channels = net("residual")
    observer = Odd(fingerprint=fingerprint("odd"))
    target = target_of(profile, "latency=0.3x", channels=channels, observer=observer)
    dense = target.space.graph(frozenset())
    target.select(channels, random_scores(channels))
    assert target.reached is not None and target.reached.ratio is not None and target.reached.ratio <= 0.3
    slow = Odd(fingerprint=fingerprint("odd"), race_factor=lambda graph: 1.4)
    with pytest.raises(DeviceError, match=r"ms when the device was measured: it throttles"):
        late = target_of(profile, "latency=0.29x", channels=channels, observer=slow)
        late.select(channels, random_scores(channels))


@pytest.mark.slow
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
    target = target_of(profile, "latency=0.5x", channels=net("chain"), foreign=True)
    with pytest.raises(DeviceError, match="knows 0 of the 24 plans of this net") as caught:
        target.select(target.channels, random_scores(target.channels))
    assert "edgeslim profile measure" in caught.value.hint


@pytest.mark.slow
def test_what_is_told_is_what_the_cut_takes_where_units_are_unequal() -> None:
    """A Split in unequal pieces: some units bring more channels than others."""
    channels = net("pieces")
    for seed, share in itertools.product(range(3), (0.45, 0.51, 0.75)):
        target = target_of(None, f"parameters={share}x,macs=0.9x,memory<0.95x,file=0.95x", channels=channels)
        cut = target.select(channels, random_scores(channels, seed))
        real = count_plan(target.space, cut, {"parameters", "macs", "memory", "file"})
        whole = count_plan(target.space, frozenset(), {"parameters"})
        assert target.reached is not None and target.reached.usage == real
        assert real["parameters"] <= share * whole["parameters"] * (1 + 1e-9)


@pytest.mark.slow
def test_a_cut_is_not_taken_back_where_that_takes_too_much_memory(profile: DeviceProfile) -> None:
    """Planted: in a race all narrow first layers are slower than the wide one. Memory forbids that."""
    channels, met = net("residual"), 0
    free = target_of(profile, "latency=0.6x", channels=channels)
    dense = count_plan(free.space, frozenset(), {"memory"})["memory"]
    narrow = {free.space.graph(free.space.cut(w)) for w in itertools.product(*free.space.candidates) if w[0] < 32}
    observer = FakeObserver(race_factor=lambda graph: 1.04 if graph in narrow else 1.0)
    for share in (0.6, 0.7, 0.8, 0.9):
        target = target_of(profile, f"latency=0.7x,memory<{share}x", channels=channels, observer=observer)
        try:
            cut = target.select(channels, random_scores(channels))
        except BudgetError:
            continue
        met += 1
        assert count_plan(target.space, cut, {"memory"})["memory"] <= share * dense
    assert met


def test_the_device_on_paper_is_one_that_onnx_agrees_with() -> None:
    """The tests' own foundation: shapes are inferred for every value, and layers are counted once."""
    space = WidthSpace(channels=net("residual"), candidates=((32,), (48,), (64,), (32,)), shape=IMAGE)
    graph = space.graph(frozenset())
    pairs = FakeObserver().timed(graph, space.feeds)
    assert len(pairs) == len(onnx.load_model_from_string(graph).graph.node)
    assert all(min(shape, default=1) > 0 for node, _ in pairs for shape in node.operator.outputs)
    assert sum(us > 5.0 for _, us in pairs) == 6
