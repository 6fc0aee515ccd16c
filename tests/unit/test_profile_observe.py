"""The real observer, ONNX Runtime on this machine: what is seen of a net, never how long it took."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeslim.bench.profile import (
    CollectOptions,
    Place,
    Step,
    WidthSpace,
    candidate_widths,
    collect,
    fit_latency,
    open_observer,
    open_profile,
    race,
)
from edgeslim.bench.profile.observe import Node, OnnxRuntimeObserver, middle_mean, spread_of
from edgeslim.bench.profile.race import FEWEST_ROUNDS
from edgeslim.errors import DeviceError, InvariantError
from edgeslim.exporter.channels import ChannelMap
from edgeslim.progress import Silent
from edgeslim.runtime.backends import Array
from edgeslim.trainer.budget import WidthLimits
from edgeslim.trainer.budget.memo import NoMemo
from edgeslim.trainer.budget.target import Target
from edgeslim.trainer.budget.targets import parse_target

from .fake_device import analysed, chain, pieces, residual, without_pauses

IMAGE = (1, 3, 16, 16)
OPTIONS = CollectOptions(nets=8, seconds=0.01)
COLLECT, CANDIDATES, RACE, OBSERVE = (  # modules, not the functions of these names
    importlib.import_module(f"edgeslim.bench.profile.{name}") for name in ("collect", "candidates", "race", "observe")
)

SWISH = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[1, 3, 16, 16] x) => (float[1, 5] y)
{
  a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, stem)
  a2 = HardSwish (a)
  b = Conv (a2, expand)
  b2 = HardSwish (b)
  c = Conv <pads = [1, 1, 1, 1], group = 40> (b2, depthwise)
  c2 = HardSwish (c)
  s = GlobalAveragePool (c2)
  s1 = Conv (s, squeeze)
  s2 = Relu (s1)
  s3 = Conv (s2, excite)
  s4 = HardSigmoid <alpha = 0.16666667> (s3)
  d = Mul (c2, s4)
  e = Conv (d, project)
  f = Add (a2, e)
  g = GlobalAveragePool (f)
  h = Flatten (g)
  y = Gemm <transB = 1> (h, head)
}
"""


def narrowest(space: WidthSpace) -> tuple[int, ...]:
    """Every family at its first candidate."""
    return tuple(candidates[0] for candidates in space.candidates)


def swish() -> ChannelMap:
    """An inverted residual with squeeze and excitation, as MobileNetV3 has them."""
    return analysed(
        SWISH,
        {
            "stem": (16, 3, 3, 3),
            "expand": (40, 16, 1, 1),
            "depthwise": (40, 1, 3, 3),
            "squeeze": (8, 40, 1, 1),
            "excite": (40, 8, 1, 1),
            "project": (16, 40, 1, 1),
            "head": (5, 16),
        },
    )


NETS = {"chain": chain, "residual": residual, "pieces": pieces, "swish": swish}


@pytest.fixture(autouse=True)
def _busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests may run beside these: whether latencies settle here is not what is tested."""
    without_pauses(monkeypatch)
    for module, name in (
        (COLLECT, "MOST_SPREAD"),
        (COLLECT, "MOST_SLOWDOWN"),
        (CANDIDATES, "MOST_SPREAD"),
        (RACE, "MOST_WIDE"),
        (RACE, "SLOWER"),
    ):
        monkeypatch.setattr(module, name, math.inf)


@pytest.fixture(scope="module")
def observer() -> OnnxRuntimeObserver:
    return open_observer("cpu:1")


def space_of(name: str, *, odd: bool = False, frames: bool = True) -> WidthSpace:
    channels = NETS[name]()
    candidates = candidate_widths(channels.families, Step(multiple=8))
    if odd:
        candidates = tuple(tuple(max(1, width - 1) for width in own[:-1]) + own[-1:] for own in candidates)
    return WidthSpace(channels=channels, candidates=candidates, shape=IMAGE, takes_frames=frames)


def check_structure(space: WidthSpace, nodes: tuple[Node, ...], graph: bytes) -> None:
    """Every layer is computed once, for a value of the given graph, and moved values belong to those who made them."""
    given = onnx.load_model_from_string(graph).graph
    values = {output for node in given.node for output in node.output} | {value.name for value in given.input}
    assert {node.value for node in nodes} <= values
    layers = sorted(node.output[0] for node in given.node if node.op_type in ("Conv", "ConvTranspose", "Gemm"))
    traced = {
        node.outputs[0].name for node in space.channels.model.graph if node.op_type in ("Conv", "ConvTranspose", "Gemm")
    }
    seen = sorted(
        space.layer_of(node.value) for node in nodes if any(word in node.operator.name for word in ("Conv", "Gemm"))
    )
    assert seen == layers == sorted(str(name) for name in traced)


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("name", sorted(NETS))
def test_every_operator_belongs_to_a_value_of_the_traced_graph(
    observer: OnnxRuntimeObserver, name: str, odd: bool
) -> None:
    space = space_of(name, odd=odd)
    for widths in (space.dense, narrowest(space)):
        graph = space.graph(space.cut(widths))
        check_structure(space, observer.structure(graph, space.feeds), graph)


def test_moved_values_belong_to_those_who_made_them(observer: OnnxRuntimeObserver) -> None:
    space = space_of("residual")
    nodes = observer.structure(space.graph(frozenset()), space.feeds)
    moved = [node for node in nodes if node.operator.name.rpartition(".")[2] in ("ReorderInput", "ReorderOutput")]
    made = {node.value for node in nodes if node not in moved}
    assert {node.value for node in moved} <= made | {"frame", "frame/image"}
    blocked = [node for node in nodes if "nchwc" in node.operator.name]
    assert bool(moved) == bool(blocked)
    for node in nodes:
        assert node.operator.outputs and node.operator.dtype in ("float", "uint8")


def test_a_net_with_branches_is_refused_by_the_branch(observer: OnnxRuntimeObserver) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    net (float[1, 3] x) => (float[1, 3] y)
    {
      zero = Constant <value = float {0.0}> ()
      sum = ReduceSum <keepdims = 0> (x)
      bright = Greater (sum, zero)
      y = If <then_branch = then () => (float[1, 3] a) { a = Sin (x) },
              else_branch = other () => (float[1, 3] b) { b = Cos (x) }> (bright)
    }
    """
    graph = onnx.parser.parse_model(text).SerializeToString()
    with pytest.raises(DeviceError, match=r"If .* runs operators of its own") as caught:
        observer.structure(graph, {"x": np.ones((1, 3), np.float32)})
    assert "limit macs" in (caught.value.hint or "")


def test_structures_are_those_of_observations_and_come_out_the_same_again(observer: OnnxRuntimeObserver) -> None:
    space = space_of("swish")
    graph = space.graph(space.cut(narrowest(space)))
    once, again = observer.structure(graph, space.feeds), observer.structure(graph, space.feeds)
    seen = observer.observe(graph, space.feeds, 0.01)
    assert once == again == seen.nodes
    assert len(seen.nodes_us) == len(seen.nodes_spread) == len(seen.nodes)
    assert min(seen.nodes_us) >= 0.5 and min(seen.nodes_spread) >= 0
    assert min(seen.latency_us, seen.reference_us) > 0 and seen.runs >= 6


def test_a_profile_of_real_latencies_comes_back_whole(observer: OnnxRuntimeObserver, tmp_path: Path) -> None:
    space = space_of("residual", odd=True)
    with open_profile(tmp_path / "p") as profile:
        place = Place(fingerprint=observer.fingerprint, profile=profile, observer=observer)
        plans = collect(space, place, Silent(), OPTIONS)
        model = fit_latency(space, profile, observer.fingerprint, plans)
        nets, operators = profile.counts(observer.fingerprint)
        assert nets == len(plans) == 8 and operators > 8
    assert model.error is not None and model.error.plans == 8
    assert all(np.isfinite(model.predict(widths)) and model.predict(widths) > 0 for widths in plans)
    assert {part.value for part in model.parts} >= {"a", "c", "e", "h", "j", "y"}  # the layers
    with open_profile(tmp_path / "p", must_exist=True) as profile:
        place = Place(fingerprint=observer.fingerprint, profile=profile, observer=_Broken())
        assert collect(space, place, Silent(), OPTIONS) == plans
        again = fit_latency(space, profile, observer.fingerprint, plans)
        assert [again.predict(widths) for widths in plans] == [model.predict(widths) for widths in plans]


class _Broken:
    """Must not be asked for anything."""

    @property
    def fingerprint(self):  # type: ignore[no-untyped-def]
        raise AssertionError

    structure = observe = race = fingerprint


@pytest.mark.slow
def test_a_target_on_this_machine(observer: OnnxRuntimeObserver, tmp_path: Path) -> None:
    """Whatever is fast here, a target that is far away is met by measurement or refused by one."""
    channels = chain(64, 128, 64)
    with open_profile(tmp_path / "p") as profile:
        target = Target(
            limits=parse_target("latency=0.97x,macs=0.9x"),
            text="latency=0.97x,macs=0.9x",
            channels=channels,
            shape=IMAGE,
            place=Place(fingerprint=observer.fingerprint, profile=profile, observer=observer),
            widths=WidthLimits(multiple=1, minimum=1),
            min_share=0.25,
            progress=Silent(),
            memo=NoMemo(),
            options=OPTIONS,
            seconds=0.05,
        )
        cut = target.select(channels, np.random.default_rng(0).random(len(channels.unit_labels)))
    assert cut and target.reached is not None and target.reached.latency_ms is not None
    assert target.reached.dense_ms is not None
    assert target.reached.latency_ms <= 0.97 * target.reached.dense_ms
    assert target.reached.usage["macs"] <= 0.9 * target.costs.usage(target.space.dense)["macs"]


@pytest.mark.slow
def test_a_race_is_in_milliseconds_with_intervals(observer: OnnxRuntimeObserver) -> None:
    space = space_of("chain")
    graphs = [space.graph(frozenset()), space.graph(space.cut(narrowest(space))), space.graph(frozenset())]
    timed = observer.race(graphs, space.feeds, 0.02)
    assert len(timed) == 3 and all(one.latency_ms > 0 for one in timed)
    assert (timed[0].against_first.ratio, timed[0].against_first.low, timed[0].against_first.high) == (1.0, 1.0, 1.0)
    for one in timed:
        assert one.against_first.low <= one.against_first.ratio <= one.against_first.high
        assert one.against_first.ratio == pytest.approx(timed[0].latency_ms / one.latency_ms)
    assert len(observer.race(graphs[:1], space.feeds, 0.02)) == 1


@pytest.mark.slow
def test_a_race_whose_ratios_stay_uncertain_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: samples of which every other one takes ten times as long."""
    monkeypatch.setattr(RACE, "MOST_WIDE", 0.15)
    generator = np.random.default_rng(0)

    def wild(calls, **_):  # type: ignore[no-untyped-def]
        return tuple(tuple(int(x) for x in generator.choice([1000, 10_000], FEWEST_ROUNDS)) for _ in calls)

    monkeypatch.setattr(RACE, "interleave", wild)
    space = space_of("chain")
    with pytest.raises(DeviceError, match=r"do not settle: after 60 rounds .* uncertain by \d+%"):
        race([space.graph(frozenset()), space.graph(space.cut(narrowest(space)))], space.feeds, seconds=0.01)


@pytest.mark.parametrize("named", [True, False])
def test_a_graph_in_another_order_than_it_ran_is_told_by_its_names(
    observer: OnnxRuntimeObserver, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """Planted: what is written as the optimised graph has its first and last nodes the other way round."""
    load = onnx.load_model

    def turned(*args, **kwargs):  # type: ignore[no-untyped-def]
        model = load(*args, **kwargs)
        nodes = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([nodes[-1], *nodes[1:-1], nodes[0]])
        for node in model.graph.node if not named else ():
            node.name = ""
        return model

    space = space_of("chain")
    seen = observer.structure(space.graph(frozenset()), space.feeds)
    monkeypatch.setattr(OBSERVE.onnx, "load_model", turned)
    if named:
        assert observer.structure(space.graph(frozenset()), space.feeds) == seen
        return
    with pytest.raises(InvariantError, match="does not fit the graph"):
        observer.structure(space.graph(frozenset()), space.feeds)


def test_frames_and_images_are_different_nets(observer: OnnxRuntimeObserver) -> None:
    framed, plain = space_of("chain"), space_of("chain", frames=False)
    nodes: list[int] = []
    for space in (framed, plain):
        feeds: Mapping[str, Array] = space.feeds
        nodes.append(len(observer.structure(space.graph(frozenset()), feeds)))
    assert nodes[0] > nodes[1]


@pytest.mark.parametrize(
    ("samples", "mean"),
    [([1.0], 1.0), ([1, 2, 3, 100], 2.5), ([5, 5, 5, 5, 50], 5.0), ([0, 4, 4, 4, 4, 4, 4, 99], 4.0)],
)
def test_outliers_do_not_move_the_mean_of_the_middle(samples: list[float], mean: float) -> None:
    assert middle_mean(samples) == pytest.approx(mean)
    assert spread_of(samples) >= 0
    assert spread_of([0.0, 0.0]) == 0.0 and spread_of([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(1 / 3)
