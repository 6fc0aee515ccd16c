"""What a profile is filled with, and what is made of it: staircases, designs, surfaces, the latency of any plan."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.bench.profile import (
    CollectOptions,
    LatencyModel,
    Step,
    Widths,
    WidthSpace,
    candidate_widths,
    collect,
    find_step,
    fit_latency,
    measure_staircase,
    open_profile,
)
from edgeslim.bench.profile.candidates import MOST_CANDIDATES, WIDEST
from edgeslim.bench.profile.check import check_model, summary
from edgeslim.bench.profile.collect import ATTEMPTS, design, observe_settled
from edgeslim.bench.profile.net_digest import net_digest
from edgeslim.bench.profile.observe import Observation
from edgeslim.bench.profile.surface import fit_surface
from edgeslim.errors import ConfigError, DeviceError
from edgeslim.exporter.channels import ChannelMap
from edgeslim.progress import Silent
from edgeslim.runtime.backends import Array

from .fake_device import FakeObserver, analysed, chain, fingerprint, pieces, place_of, residual, without_pauses

IMAGE = (1, 3, 16, 16)
OPTIONS = CollectOptions(nets=24, seconds=0.01)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pauses(monkeypatch)


def space_of(channels: ChannelMap, step: int = 16, *, frames: bool = True) -> WidthSpace:
    candidates = candidate_widths(channels.families, Step(multiple=step), min_share=0.25)
    return WidthSpace(channels=channels, candidates=candidates, shape=IMAGE, takes_frames=frames)


@dataclass(kw_only=True)
class Filled:
    """A space, the profile that it was measured into, and the model of it."""

    space: WidthSpace
    observer: FakeObserver
    path: Path
    plans: tuple[Widths, ...] = ()
    model: LatencyModel = field(init=False)

    def __post_init__(self) -> None:
        with open_profile(self.path) as profile:
            self.plans = collect(self.space, place_of(profile, self.observer), Silent(), OPTIONS)
            self.model = fit_latency(self.space, profile, self.observer.fingerprint, self.plans)

    def whole(self, widths: Widths) -> float:
        return self.observer.whole(self.space.graph(self.space.cut(widths)), self.space.feeds)


# --- staircases ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "multiple", "noise"),
    [
        (1, 4, 0.03),
        (16, 16, 0.0),
        *(
            pytest.param(block, multiple, noise, marks=pytest.mark.slow)
            for block, multiple in ((1, 4), (2, 4), (4, 4), (8, 8), (16, 16), (32, 32))
            for noise in (0.0, 0.03)
        ),
    ],
)
def test_the_step_is_the_devices_block(tmp_path: Path, block: int, multiple: int, noise: float) -> None:
    observer = FakeObserver(block=block, noise=noise)
    with open_profile(tmp_path / "p") as profile:
        found = measure_staircase(place_of(profile, observer), Silent())
        assert set(found) == set(range(1, WIDEST + 1))
        assert find_step(found) == Step(multiple=multiple)
        assert observer.observed == WIDEST
        assert measure_staircase(place_of(profile, observer), Silent()) == found  # nothing is measured twice
        assert observer.observed == WIDEST


def test_widths_below_a_step_count_where_they_are_much_faster() -> None:
    """Blocks of 16, of which a half and a quarter are computed by kernels of their own."""
    blocks = {4: 4, 8: 8}
    staircase = {w: float(next((b for t, b in blocks.items() if w <= t), math.ceil(w / 16) * 16)) ** 2 for w in
                 range(1, 65)}  # fmt: skip
    assert find_step(staircase) == Step(multiple=16, below=(4, 8))


@pytest.mark.parametrize(("multiple", "below"), [(0, ()), (8, (8,)), (8, (0,))])
def test_steps_are_checked(multiple: int, below: Widths) -> None:
    with pytest.raises(ValueError, match="below it"):
        Step(multiple=multiple, below=below)


def test_a_staircase_that_does_not_settle_is_no_staircase(tmp_path: Path) -> None:
    observer = FakeObserver(spread=0.4)
    with open_profile(tmp_path / "p") as profile:
        with pytest.raises(DeviceError, match=r"do not settle.*40%"):
            measure_staircase(place_of(profile, observer), Silent())
        assert profile.counts(observer.fingerprint) == (0, 0)
    assert observer.observed == ATTEMPTS


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 64), st.floats(0.0, 0.99))
def test_candidates_are_allowed_widths(first: int, second: int, multiple: int, least: int, share: float) -> None:
    families = chain(first, second, 96).families
    step = Step(multiple=16, below=(4, 8))
    found = candidate_widths(families, step, width_multiple=multiple, min_width=least, min_share=share)
    for family, own in zip(families, found, strict=True):
        assert own[-1] == family.width and list(own) == sorted(set(own))
        assert len(own) <= MOST_CANDIDATES
        for width in own[:-1]:
            assert width % multiple == 0 and (width % 16 == 0 or width in (4, 8))
            assert width >= least and width >= share * family.width - 1e-6


def test_many_candidates_are_thinned_out() -> None:
    (own, *_) = candidate_widths(chain(512, 8, 8).families, Step(multiple=4))
    assert len(own) == MOST_CANDIDATES and own[0] == 4 and own[-1] == 512


# --- designs -------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 5), max_size=5), st.integers(8, 60), st.integers(0, 5))
def test_designs_have_as_many_different_plans_as_there_are(counts: list[int], nets: int, seed: int) -> None:
    candidates = [tuple(range(8, 8 * (count + 1), 8)) for count in counts]
    plans = design(candidates, nets, seed)
    assert len(set(plans)) == len(plans) == min(nets, math.prod(counts))
    assert tuple(own[-1] for own in candidates) == plans[0]
    assert tuple(own[0] for own in candidates) in plans
    assert all(width in own for plan in plans for width, own in zip(plan, candidates, strict=True))
    assert design(candidates, nets, seed) == plans


def test_a_design_has_every_width_about_equally_often() -> None:
    candidates = [tuple(range(1, 1 + n)) for n in (8, 16, 10)]
    plans = design(candidates, 82)[2:]
    for own, column in zip(candidates, zip(*plans)):
        counts = [column.count(width) for width in own]
        assert max(counts) - min(counts) <= 3, counts  # a few plans were drawn twice, and others taken instead


# --- filling a profile ---------------------------------------------------------------------------------------


def test_nothing_is_measured_twice(tmp_path: Path) -> None:
    first = Filled(space=space_of(chain()), observer=FakeObserver(), path=tmp_path / "p")
    assert first.observer.observed + first.observer.structures >= OPTIONS.nets
    again = Filled(space=space_of(chain()), observer=FakeObserver(), path=tmp_path / "p")
    assert (again.observer.observed, again.observer.structures) == (0, 0)
    assert again.plans == first.plans and len(first.plans) == OPTIONS.nets


def test_plans_whose_operators_are_known_are_only_looked_at(tmp_path: Path) -> None:
    """Weights do not count: the same net with others is the same net. One with another layer is not."""
    filled = Filled(space=space_of(chain()), observer=FakeObserver(), path=tmp_path / "p")
    assert filled.observer.structures > 0
    assert filled.observer.observed < OPTIONS.nets
    other = Filled(space=space_of(chain(48, 64, 80)), observer=FakeObserver(), path=tmp_path / "p")
    assert other.observer.observed > 0


class StopsAfter(FakeObserver):
    """Pulls the plug in the middle."""

    def observe(self, graph: bytes, feeds: Mapping[str, Array], seconds: float) -> Observation:
        if self.observed == 7:
            raise KeyboardInterrupt
        return super().observe(graph, feeds, seconds)


def test_an_interrupted_profile_is_continued(tmp_path: Path) -> None:
    space, path = space_of(residual()), tmp_path / "p"
    with pytest.raises(KeyboardInterrupt):
        Filled(space=space, observer=StopsAfter(), path=path)
    with open_profile(path) as profile:
        assert profile.counts(fingerprint())[0] == 7
    rest = Filled(space=space, observer=FakeObserver(), path=path)
    whole = Filled(space=space, observer=FakeObserver(), path=tmp_path / "at once")
    assert rest.observer.observed + 7 == whole.observer.observed
    for widths in itertools.product(*space.candidates):
        assert rest.model.predict(widths) == pytest.approx(whole.model.predict(widths), rel=1e-9)


def test_a_device_that_becomes_slow_is_made_up_for_and_then_refused(tmp_path: Path) -> None:
    space = space_of(residual())
    quick = Filled(space=space, observer=FakeObserver(), path=tmp_path / "quick")
    slower = FakeObserver(slow=lambda number: 1.6 if number >= 10 else 1.0)
    tired = Filled(space=space, observer=slower, path=tmp_path / "tired")
    for widths in itertools.product(*space.candidates):
        share = tired.model.predict(widths) / tired.model.predict(space.dense)
        assert share == pytest.approx(quick.model.predict(widths) / quick.model.predict(space.dense), rel=1e-6)
    throttled = FakeObserver(slow=lambda number: 3.0 if number >= 10 else 1.0)
    with pytest.raises(DeviceError, match=r"3\.0 times as slow") as caught:
        Filled(space=space, observer=throttled, path=tmp_path / "throttled")
    assert "what was measured is kept" in caught.value.hint
    with open_profile(tmp_path / "throttled") as profile:
        assert profile.counts(throttled.fingerprint)[0] == 10


def test_latencies_that_do_not_settle_are_no_latencies(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="do not settle: in the steadiest of 4 attempts they spread by 30%"):
        Filled(space=space_of(chain()), observer=FakeObserver(spread=0.3), path=tmp_path / "p")
    usable = FakeObserver(spread=0.2)  # not steady, not useless: the best of some attempts
    feeds = space_of(chain()).feeds
    observe_settled(usable, space_of(chain()).graph(frozenset()), feeds, None, 0.01)
    assert usable.observed == ATTEMPTS


def test_nothing_is_measured_for_a_device_that_is_not_here(tmp_path: Path) -> None:
    space, observer = space_of(chain()), FakeObserver()
    with open_profile(tmp_path / "p") as profile:
        place = find_place(profile, observer, here=False)
        plans = collect(space, place, Silent(), OPTIONS)
        with pytest.raises(DeviceError, match="knows 0 of the 24 plans") as caught:
            fit_latency(space, profile, observer.fingerprint, plans)
        assert "--nets 24" in caught.value.hint
        with pytest.raises(DeviceError, match="has no staircase"):
            measure_staircase(place, Silent())
    assert observer.observed == 0


def find_place(profile, observer: FakeObserver, *, here: bool):  # type: ignore[no-untyped-def]
    place = place_of(profile, observer)
    return place if here else type(place)(fingerprint=place.fingerprint, profile=profile, observer=None)


@pytest.mark.parametrize(("nets", "seconds"), [(7, 1.0), (40, 0.0), (40, -1.0), (40, math.nan)])
def test_options_are_checked(nets: int, seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"nets is|seconds is"):
        CollectOptions(nets=nets, seconds=seconds)


# --- spaces --------------------------------------------------------------------------------------------------


def sized(graph: onnx.GraphProto) -> str:
    return net_digest(onnx.helper.make_model(graph).SerializeToString(), {"x": np.zeros((1, 3, 8, 8), np.float32)})


def test_a_net_is_known_by_its_structure() -> None:
    net = space_of(chain())
    dense = net.graph(frozenset())
    assert net_digest(dense, net.feeds) == net_digest(space_of(chain()).graph(frozenset()), net.feeds)
    other = onnx.load_model_from_string(dense)
    for tensor in other.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor) * 2
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    assert net_digest(other.SerializeToString(), net.feeds) == net_digest(dense, net.feeds)
    sizes = onnx.parser.parse_graph(
        """net (float[1, 3, h, w] x) => (float[n, c, i, j] y)
        <float[4] factors = {1, 1, 2, 2}, int64[2] axes = {2, 3}, float[1] half = {0.5}>
        { none = Constant <value = float[0] {}> ()
          large = Resize (x, none, factors)
          shape = Shape (large)
          numbers = Cast <to = 1> (shape)
          halves = Mul (numbers, half)
          smaller = Cast <to = 7> (halves)
          rows = ReduceMax <keepdims = 1> (large, axes)
          y = Expand (rows, smaller) }"""
    )
    found = {sized(sizes)}
    for number, tensor in enumerate(sizes.initializer):
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array + 1, tensor.name))
        found.add(sized(sizes))
        assert len(found) == number + 2, f"{tensor.name} says how large something is"
    larger = {name: np.zeros((*a.shape[:-1], a.shape[-1] + 1), a.dtype) for name, a in net.feeds.items()}
    assert net_digest(dense, larger) != net_digest(dense, net.feeds)
    digests = {net.digest(widths) for widths in itertools.product(*net.candidates)}
    assert len(digests) == math.prod(map(len, net.candidates))
    assert net.digest(net.dense) != space_of(chain(), frames=False).digest(net.dense)


@pytest.mark.parametrize("make", [chain, residual, pieces])
def test_a_plan_of_a_space_has_its_widths(make) -> None:  # type: ignore[no-untyped-def]
    space = space_of(make())
    generator = np.random.default_rng(0)
    orders = [generator.permutation(family.labels) for family in space.channels.families]
    for widths in itertools.islice(itertools.product(*space.candidates), 40):
        for cut in (space.cut(widths), space.cut(widths, orders)):
            assert space.widths(cut) == widths
        for order, width, family in zip(orders, widths, space.channels.families):
            assert set(order[width:].tolist()) == set(family.labels.tolist()) & space.cut(widths, orders)


POOLED = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[1, 3, 16, 16] x) => (float[1, 5] y)
<int64[2] sizes = {48, 16}>
{
  a = Conv <pads = [1, 1, 1, 1]> (x, first)
  b = Relu (a)
  left, right = Split <axis = 1> (b, sizes)
  c = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (right)
  e = Concat <axis = 1> (left, c)
  f = Conv (e, third)
  g = Relu (f)
  h = GlobalAveragePool (g)
  i = Flatten (h)
  y = Gemm <transB = 1> (i, head)
}
"""


def test_no_piece_of_a_split_is_left_empty() -> None:
    """Both pieces are one family, so it could lose all of one of them: what runs then is no net any more."""
    channels = analysed(POOLED, {"first": (64, 3, 3, 3), "third": (48, 64, 1, 1), "head": (5, 48)})
    space = space_of(channels)
    assert space.dense == (64, 48)
    labels = channels.families[0].labels
    for orders in (None, [labels[::-1], channels.families[1].labels]):
        for widths in itertools.product((1, 2, 15, 16, 48), (16,)):
            cut = space.cut(widths, orders)
            assert not channels.emptied(cut)
            assert space.widths(cut) == ((max(2, widths[0])), 16)  # of one channel there are no two pieces
            FakeObserver().timed(space.graph(cut), space.feeds)  # every shape can be inferred
    first, last = labels[0], labels[-1]
    assert first not in space.cut((2, 48)) and last not in space.cut(
        (2, 48), [labels[::-1], channels.families[1].labels]
    )


def test_feeds_have_the_nets_own_type() -> None:
    text = POOLED.replace("float[1, 3, 16, 16] x)", "float16[1, 3, 16, 16] half)")
    text = text.replace("{\n  a =", "{\n  x = Cast <to = 1> (half)\n  a =")
    channels = analysed(text, {"first": (64, 3, 3, 3), "third": (48, 64, 1, 1), "head": (5, 48)})
    (array,) = space_of(channels, frames=False).feeds.values()
    assert array.dtype == np.float16 and array.shape == IMAGE
    (frame,) = space_of(channels).feeds.values()
    assert frame.dtype == np.uint8 and frame.shape == (1, 16, 16, 3)


# --- surfaces and models -------------------------------------------------------------------------------------

COEFFICIENTS = st.floats(0.0, 100.0)
SIDES = st.lists(st.integers(1, 256), min_size=2, max_size=6, unique=True)


@settings(max_examples=50)
@given(st.tuples(*[COEFFICIENTS] * 4), SIDES, SIDES)
def test_surfaces_pass_through_bilinear_latencies(c: tuple[float, ...], reads: list[int], writes: list[int]) -> None:
    read, written = (axis.ravel().astype(np.float64) for axis in np.meshgrid(reads, writes))
    exact = c[0] + c[1] * read + c[2] * written + c[3] * read * written + 1.0
    surface = fit_surface(read, written, exact)
    assert surface.at(read, written) == pytest.approx(exact, rel=1e-6)
    between = np.linspace(min(reads), max(reads), 5)
    fixed = np.full(5, float(writes[0]))
    expected = c[0] + c[1] * between + c[2] * fixed + c[3] * between * fixed + 1.0
    assert surface.at(between, fixed) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("block", [8, 16])
def test_surfaces_follow_staircases_at_their_lattice(block: int) -> None:
    """At whole blocks, where plans are, a staircase is bilinear."""
    sides = np.arange(block, 8 * block + 1, block, dtype=np.float64)
    read, written = (axis.ravel() for axis in np.meshgrid(sides, sides))
    latency = 3.0 + 0.01 * np.ceil(read / block) * np.ceil(written / block) * block**2
    assert fit_surface(read, written, latency).at(read, written) == pytest.approx(latency, rel=1e-6)


def test_a_part_that_some_nets_lack_costs_next_to_nothing_there() -> None:
    """A reorder is put in beyond 32 channels alone."""
    written = np.repeat(np.arange(8.0, 72.0, 8.0), 3)
    latency = np.where(written > 32, 10.0 + written, 0.0)
    surface = fit_surface(np.zeros_like(written), written, latency)
    at = surface.at(np.zeros(2), np.array([8.0, 64.0]))
    assert at[0] < 0.15 * at[1] and at[1] == pytest.approx(74.0, rel=0.15)
    none = fit_surface(np.zeros(3), np.ones(3), np.zeros(3))
    assert none.at(np.zeros(1), np.ones(1)) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("make", [chain, residual])
def test_a_model_predicts_every_plan_of_a_device_that_is_bilinear_in_blocks(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    observer = FakeObserver(whole_factor=1.1, per_node_us=4.0)
    filled = Filled(space=space_of(make()), observer=observer, path=tmp_path / "p")
    assert filled.model.error is not None and filled.model.error.worst < 1e-6
    for widths in itertools.product(*filled.space.candidates):
        assert filled.model.predict(widths) == pytest.approx(filled.whole(widths), rel=1e-6)


def test_the_error_that_a_model_states_is_of_plans_that_it_had_not_seen(tmp_path: Path) -> None:
    """Widths inside blocks, and noise: what cross-validation says is what predictions of all plans are off by."""
    space = WidthSpace(
        channels=residual(),
        candidates=tuple(tuple(range(f.width // 4, f.width + 1, 5)) for f in residual().families),
        shape=IMAGE,
    )
    space = WidthSpace(
        channels=space.channels,
        candidates=tuple((*own[:-1], dense) for own, dense in zip(space.candidates, space.dense)),
        shape=IMAGE,
    )
    filled = Filled(space=space, observer=FakeObserver(noise=0.02), path=tmp_path / "p")
    generator = np.random.default_rng(5)
    errors = []
    for _ in range(60):
        widths = tuple(int(generator.choice(own)) for own in space.candidates)
        errors.append(abs(filled.model.predict(widths) / filled.whole(widths) - 1.0))
    error = filled.model.error
    assert error is not None and error.plans <= OPTIONS.nets
    assert error.median / 3 <= np.median(errors) <= 3 * error.median
    assert error.median <= error.worst
    assert error.median > 1e-3  # a model that claims more has looked at the answers


@pytest.mark.parametrize("width", [1, 16, 32])
def test_nets_with_hardly_any_plans_can_be_modelled(tmp_path: Path, width: int) -> None:
    space = WidthSpace(channels=chain(width, 16, 16), candidates=candidate_widths(chain(width, 16, 16).families,
                       Step(multiple=16)), shape=IMAGE)  # fmt: skip
    filled = Filled(space=space, observer=FakeObserver(), path=tmp_path / "p")
    assert len(filled.plans) == math.prod(map(len, space.candidates)) < 6
    assert filled.model.error is None
    for widths in itertools.product(*space.candidates):
        assert filled.model.predict(widths) == pytest.approx(filled.whole(widths), rel=1e-6)


def test_a_model_is_checked_by_measuring(tmp_path: Path) -> None:
    filled = Filled(space=space_of(residual()), observer=FakeObserver(), path=tmp_path / "p")
    with open_profile(tmp_path / "p") as profile:
        right = check_model(filled.space, place_of(profile, filled.observer), filled.model, plans=10)
        assert summary(right).worst < 1e-6 and summary(right).plans == 10
        dense = filled.space.graph(frozenset())
        wrong = FakeObserver(race_factor=lambda graph: 1.0 if graph == dense else 1.3)  # planted
        found = check_model(filled.space, place_of(profile, wrong), filled.model, plans=10)
        cut = [one for one in found if one.widths != filled.space.dense]
        assert all(one.error == pytest.approx(1 / 1.3 - 1, rel=1e-6) for one in cut)
        assert all(one.low <= one.measured <= one.high for one in found)
        with pytest.raises(ConfigError, match="is not here"):
            check_model(filled.space, find_place(profile, filled.observer, here=False), filled.model)
        with pytest.raises(ConfigError, match="plans is 0"):
            check_model(filled.space, place_of(profile, filled.observer), filled.model, plans=0)
