"""Which groups a search keeps in int8: decided on planted speeds and real scores, and once by this machine's clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from edgeslim.bench.precision import SearchOptions, search_precision
from edgeslim.bench.precision.groups import neighbours
from edgeslim.errors import BudgetError, ConfigError, DataError
from edgeslim.exporter.precision import Fp16Options, Int8Options
from edgeslim.exporter.precision.request import VariantRequest
from edgeslim.progress import Silent
from edgeslim.runtime import Variant, open_backend, read_bundle
from edgeslim.runtime.backends import Array, Backend
from edgeslim.runtime.validation import ValidationSet

from .precision_bundles import LAYERS, frames, labelled, net, quantized, write_net

INT8 = VariantRequest(name="int8", options=Int8Options(correct_bias=False), most_loss=0.2)
MS = 5e-4


class FakeClock:
    """Time that passes only on a FakeDevice, so that what else this machine does decides nothing."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


CLOCK = FakeClock()


@pytest.fixture
def fake_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeslim.bench.clock.perf_counter_ns", CLOCK)


class FakeDevice:
    """ONNX Runtime's answers, after a pause: `pause` says how long for the layers that are int8, in seconds.

    It stands for a device of known speeds, and counts the nets that were opened on it.
    """

    def __init__(self, pause: Callable[[frozenset[str]], float]) -> None:
        self.pause, self.opened = pause, 0

    def __call__(self, graph: bytes) -> Backend:
        self.opened += 1
        low = frozenset(quantized(graph))
        return _Paused(open_backend("onnxruntime", graph), self.pause(low))


class _Paused:
    def __init__(self, backend: Backend, seconds: float) -> None:
        self._backend, self._seconds = backend, seconds
        self.name, self.version = backend.name, backend.version
        self.inputs, self.outputs = backend.inputs, backend.outputs

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        CLOCK.now_ns += round(self._seconds * 1e9)
        return list(self._backend.run(feeds))

    def close(self) -> None:
        self._backend.close()

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def search(
    bundle: Path,
    device: FakeDevice | None,
    request: VariantRequest = INT8,
    groups: int = 4,
    data: ValidationSet | None = None,
) -> Variant:
    return search_precision(
        bundle,
        request,
        frames(4),
        data or labelled(net()),
        options=SearchOptions(groups=groups, samples=20, seconds=20.0),
        open_graph=device,
        progress=Silent(),
    )


def each(**milliseconds: float) -> Callable[[frozenset[str]], float]:
    """The pause of a device where a layer in fp32 costs 3 units of time, in int8 what is given, 1 where nothing is."""
    return lambda low: MS * sum(milliseconds.get(name, 1.0) if name in low else 3.0 for name in LAYERS)


def test_neighbours_share_a_group() -> None:
    assert [(g.name, g.layers) for g in neighbours(list("abcde"), 2)] == [
        ("layers 1-3", ("a", "b", "c")),
        ("layers 4-5", ("d", "e")),
    ]
    assert [g.name for g in neighbours(("a", "b"), 9)] == ["layer 1", "layer 2"]
    assert neighbours((), 3) == ()


@pytest.mark.slow
@pytest.mark.usefixtures("fake_clock")
def test_a_group_that_makes_the_device_slower_goes_back(tmp_path: Path) -> None:
    bundle = write_net(tmp_path / "a.bundle")
    variant = search(bundle, FakeDevice(each(second=9.0)))
    table = {choice.group: choice for choice in variant.search}
    assert [choice.precision for choice in variant.search] == ["int8", "fp32", "int8", "int8", "int8"]
    assert table["layer 2"].layers == ("second.weight",) and "not measurably faster" in table["layer 2"].reason
    assert (table["layer 2"].gain_ms or 0) < 0 < (table["layer 1"].gain_low_ms or 0)
    assert list(table)[-1] == "the whole net" and table["the whole net"].reason == "beside fp32 throughout"
    assert table["the whole net"].loss == pytest.approx(1.0 - variant.metrics["dice"])
    # What is in the bundle is what was chosen.
    whole = read_bundle(bundle)
    assert whole.manifest.variants == (variant,)
    assert set(quantized(whole.graph("int8"))) == {"first", "third", "head"}


@pytest.mark.slow
@pytest.mark.usefixtures("fake_clock")
def test_groups_that_pay_only_together_stay_together(tmp_path: Path) -> None:
    """Each conversion costs what a layer gains, so no layer alone tells that all of them are worth it."""
    both = FakeDevice(lambda low: MS * (4.0 if len(low) >= 3 else 12.0))
    variant = search(write_net(tmp_path / "a.bundle"), both)
    assert {choice.precision for choice in variant.search} == {"int8"}
    assert variant.search[0].reason == "no group pays by itself, all together may"


@pytest.mark.slow
@pytest.mark.usefixtures("fake_clock")
def test_int8_that_is_slower_is_not_shipped(tmp_path: Path) -> None:
    bundle = write_net(tmp_path / "a.bundle")
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(
        BudgetError, match=r"int8 does not make tiny faster here: the best mixture is 0\.\d+x"
    ) as caught:
        search(bundle, FakeDevice(each(**dict.fromkeys(LAYERS, 4.0))))
    assert "the device that will run it" in caught.value.hint
    assert (bundle / "manifest.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.usefixtures("fake_clock")
def test_the_group_that_loses_most_for_its_time_goes_back_first(tmp_path: Path) -> None:
    """The budget lies between what all layers lose and what they lose without the worst of them."""
    bundle, data = write_net(tmp_path / "a.bundle"), labelled(net(), 16)
    free = search(bundle, FakeDevice(each()), data=data)
    losses = {choice.group: choice.loss or 0.0 for choice in free.search[:-1]}
    whole, worst = free.search[-1].loss or 0.0, max(losses, key=lambda group: losses[group])
    assert whole > 0 and losses[worst] > 0
    budget = whole - losses[worst] / 2
    tight = search(bundle, FakeDevice(each()), dataclasses.replace(INT8, most_loss=budget), data=data)
    back = [choice for choice in tight.search if choice.precision == "fp32"]
    assert back[0].group == worst and "short of its budget" in back[0].reason
    assert 1.0 - tight.metrics["dice"] <= budget + 1e-9


@pytest.mark.slow
@pytest.mark.usefixtures("fake_clock")
def test_time_counts_too(tmp_path: Path) -> None:
    """Of two ways to meet the budget, the layer that gains next to nothing goes, and not the one that gains much."""
    bundle, data = write_net(tmp_path / "a.bundle"), labelled(net(), 16)
    free = search(bundle, FakeDevice(each()), data=data)
    losing = [choice for choice in free.search[:-1] if (choice.loss or 0.0) > 0]
    slight = min(losing, key=lambda choice: choice.loss or 0.0)
    name = slight.layers[0].partition(".")[0]
    budget = (free.search[-1].loss or 0.0) - (slight.loss or 0.0) / 2
    # That layer gains a fifth of what the others do: for its time it is the dearest.
    uneven = FakeDevice(lambda low: MS * sum(3.0 if n not in low else 2.4 if n == name else 0.0 for n in LAYERS))
    tight = search(bundle, uneven, dataclasses.replace(INT8, most_loss=budget), data=data)
    assert tight.search[[c.group for c in free.search].index(slight.group)].precision == "fp32"


@pytest.mark.slow
@pytest.mark.usefixtures("fake_clock")
def test_a_budget_that_nothing_meets(tmp_path: Path) -> None:
    bundle = write_net(tmp_path / "a.bundle")
    with pytest.raises(BudgetError, match="no layer of tiny can be int8 with dice at most 0 below 1"):
        search(bundle, FakeDevice(each()), dataclasses.replace(INT8, most_loss=0.0), data=labelled(net(), 16))


@pytest.mark.usefixtures("fake_clock")
def test_a_single_group_is_compared_with_fp32(tmp_path: Path) -> None:
    variant = search(write_net(tmp_path / "a.bundle"), FakeDevice(each()), groups=1)
    assert [choice.group for choice in variant.search] == ["layers 1-4", "the whole net"]
    assert variant.search[0].layers == tuple(f"{name}.weight" for name in LAYERS)


@pytest.mark.slow
@pytest.mark.usefixtures("fake_clock")
def test_the_rest_may_be_float16(tmp_path: Path) -> None:
    request = dataclasses.replace(INT8, half=True)
    variant = search(write_net(tmp_path / "a.bundle"), FakeDevice(each(second=9.0)), request)
    assert [choice.precision for choice in variant.search] == ["int8", "fp16", "int8", "int8", "int8"]


@pytest.mark.usefixtures("fake_clock")
def test_what_makes_no_sense_is_refused_at_once(tmp_path: Path) -> None:
    bundle, device = write_net(tmp_path / "a.bundle"), FakeDevice(each())
    with pytest.raises(ConfigError, match="only int8 is searched"):
        search(bundle, device, VariantRequest(name="fp16", options=Fp16Options()))
    unlabelled = dataclasses.replace(labelled(net()), targets=np.full((4, 16, 24), 255))
    with pytest.raises(DataError, match="no answer to score by"):
        search(bundle, device, data=unlabelled)
    for options in ({"groups": 0}, {"samples": 3}):
        with pytest.raises(ConfigError):
            SearchOptions(**options)
    assert device.opened == 0


@pytest.mark.slow
def test_on_this_machine(tmp_path: Path) -> None:
    """ONNX Runtime and the clock as they are: whatever they say, the record or the refusal follows from it."""
    bundle = write_net(tmp_path / "a.bundle")
    request = dataclasses.replace(INT8, options=Int8Options(placement="onnxruntime"))
    try:
        variant = search(bundle, None, request, groups=2)
    except BudgetError as error:
        assert "does not make tiny faster here" in error.message and not read_bundle(bundle).manifest.variants
    else:
        assert (variant.search[-1].gain_low_ms or 0) > 0 and read_bundle(bundle).manifest.variants == (variant,)
