"""`prune` for a target on a device, which is the one on paper of tests/unit."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeslim.bench.profile import find, open_profile
from edgeslim.errors import BudgetError, ConfigError, DeviceError
from edgeslim.trainer.budget import Budget, Ratio, WidthLimits
from edgeslim.trainer.prune import prune
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.ranks import Ranks
from edgeslim.trainer.ranks.share import share_budget
from edgeslim.trainer.schedules.scoring import Scoring
from edgeslim.trainer.slim import slim_file

from ..unit.fake_device import FakeObserver, fingerprint, place_of, without_pauses
from ..unit.test_slim import write_net


class Net(nn.Module):
    """Three convolutions with batch norms, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 48, 64)
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, padding=1, stride=2), nn.BatchNorm2d(o), nn.ReLU())
                for i, o in itertools.pairwise(widths)
            )
        )
        self.head = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture
def observer(monkeypatch: pytest.MonkeyPatch) -> FakeObserver:
    without_pauses(monkeypatch)
    found = FakeObserver()
    monkeypatch.setattr(find, "open_observer", lambda name: found)
    return found


def test_a_module_is_pruned_for_a_target(observer: FakeObserver, tmp_path: Path) -> None:
    torch.manual_seed(0)
    example = torch.zeros(1, 3, 32, 32)
    net = prune(Net(), example, target="latency=0.6x,memory<1MB", profile=tmp_path / "p")
    assert net.reached is not None and net.reached.ratio is not None and net.reached.ratio <= 0.6
    assert net.origin["device_profile"] == fingerprint().digest
    assert any(layer.width_after < layer.width_before for layer in net.coverage)
    kept = {layer.layer: layer.width_after for layer in net.coverage if layer.operator == "Conv"}
    assert all(width % 16 == 0 for width in kept.values()), kept
    assert net.compact()(example).shape == (1, 5)
    again = observer.observed
    prune(Net(), example, target="latency=0.5x", profile=tmp_path / "p")
    assert observer.observed == again, "the second net has the same structure"


def test_a_target_that_nothing_meets_is_refused(observer: FakeObserver, tmp_path: Path) -> None:
    for target in ("latency=0.001x", "latency=1us"):
        with pytest.raises(BudgetError, match="cannot be reached"):
            prune(Net(), torch.zeros(1, 3, 32, 32), target=target, profile=tmp_path / "p")


def test_a_target_that_the_dense_net_meets_cuts_nothing(observer: FakeObserver, tmp_path: Path) -> None:
    net = prune(Net(), torch.zeros(1, 3, 32, 32), target="latency=100s", profile=tmp_path / "p")
    assert not net.cut and net.reached is not None and net.reached.untouched


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("latency=0.5x", "no family has a width to choose"),
        ("latency=1us", "no family has a width to choose"),
        ("memory=1B", "memory=0.000001MB cannot be reached"),
        ("macs=0.5x", "of the dense net's MACs cannot be reached"),
    ],
)
def test_a_net_without_channels_to_cut_misses_targets(
    observer: FakeObserver, tmp_path: Path, target: str, said: str
) -> None:
    with pytest.raises(BudgetError, match=said):
        prune(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 16, 16), target=target, profile=tmp_path / "p")


@pytest.mark.parametrize("target", ["latency=5s", "latency=1x", "memory<1GB"])
def test_a_net_without_channels_to_cut_may_meet_a_target(observer: FakeObserver, tmp_path: Path, target: str) -> None:
    net = prune(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 16, 16), target=target, profile=tmp_path / "p")
    assert net.reached is not None and net.reached.untouched


@pytest.mark.parametrize(
    "options", [{"device": 2}, {"device": None}, {"profile": 5}, {"allow_foreign_profile": "maybe"}]
)
def test_options_of_another_type(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} is "):
        prune(Net(), torch.zeros(1, 3, 32, 32), target="latency=0.5x", **options)  # type: ignore[arg-type]


def test_a_file_of_any_size_needs_one_to_be_timed_at(observer: FakeObserver, tmp_path: Path) -> None:
    given = write_net(tmp_path / "in.onnx", dead=False)
    for target in ("latency=5s", "latency=0.8x", "memory<1GB", "macs=1G,file=1GB"):
        with pytest.raises(ConfigError, match=r"is of one size of the input, and image takes any: \("):
            slim_file(given, tmp_path / "out.onnx", target=target, profile=tmp_path / "p")
    frames = np.zeros((6, 3, 48, 80), np.float32)
    report = slim_file(given, tmp_path / "out.onnx", target="latency=5s", profile=tmp_path / "p", calibration=frames)
    assert report.reached is not None and str(report.reached).startswith("latency=5s at 48x80 on ")


def test_a_file_that_is_not_there_is_no_profile_of_another_device(observer: FakeObserver, tmp_path: Path) -> None:
    """Else this machine would be measured into it, and nothing be marked."""
    path, example = tmp_path / "typo", torch.zeros(1, 3, 32, 32)
    with pytest.raises(DeviceError, match="there is no device profile"):
        prune(Net(), example, target="latency=0.5x", profile=path, allow_foreign_profile=True)
    assert not path.exists() and observer.observed == 0


def test_this_device_may_be_named_by_its_own_digits(observer: FakeObserver, tmp_path: Path) -> None:
    example, path = torch.zeros(1, 3, 32, 32), tmp_path / "p"
    prune(Net(), example, target="latency=0.7x", profile=path)
    net = prune(Net(), example, target="latency=0.6x", profile=path, device=fingerprint().short)
    assert net.reached is not None and not net.reached.foreign and net.reached.latency_ms is not None


def test_a_score_of_minus_infinity_is_the_lowest_and_has_not_left(observer: FakeObserver, tmp_path: Path) -> None:
    class Logarithm:
        name, looks_at = "logarithm", "weights"

        def score(self, net, images):  # type: ignore[no-untyped-def]
            return np.where(np.arange(len(net.channels.unit_labels)) % 2, 0.0, -np.inf)

    options = {"criterion": Logarithm(), "profile": tmp_path / "p"}
    net = prune(Net(), torch.zeros(1, 3, 32, 32), target="latency=5x", **options)  # type: ignore[arg-type]
    assert not net.cut and net.reached is not None and net.reached.untouched
    net = prune(Net(), torch.zeros(1, 3, 32, 32), target="macs=0.8x,file=1GB", **options)  # type: ignore[arg-type]
    assert net.cut and net.reached is not None and not net.reached.untouched


def test_the_lowest_score_stands_for_minus_infinity() -> None:
    class Given:
        name, looks_at = "given", "weights"

        def score(self, net, images):  # type: ignore[no-untyped-def]
            return np.array([5.0, 6.0, -np.inf] + [7.0] * (len(net.channels.unit_labels) - 3))

    net = PrunedModel.from_module(Net().eval(), torch.zeros(1, 3, 32, 32))
    scores = Scoring(criterion=Given(), images=np.zeros((1, 3, 32, 32), np.float32)).scores(net)  # type: ignore[arg-type]
    assert scores[:3].tolist() == [5.0, 6.0, 5.0]


def test_rows_of_numbers_are_no_frames() -> None:
    net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))
    pruned = prune(net, torch.zeros(1, 8), target="parameters=0.5x,file=0.8x")
    assert pruned.cut and pruned.reached is not None and pruned.reached.size is None


def test_a_foreign_profile_is_marked(observer: FakeObserver, tmp_path: Path) -> None:
    example, path = torch.zeros(1, 3, 32, 32), tmp_path / "p"
    prune(Net(), example, target="latency=0.6x", profile=path)
    observer.fingerprint = fingerprint("another")
    with pytest.raises(DeviceError, match="was taken on another device"):
        prune(Net(), example, target="latency=0.6x", profile=path)
    asked = observer.observed, observer.races
    net = prune(Net(), example, target="latency=0.6x", profile=path, allow_foreign_profile=True)
    assert (observer.observed, observer.races) == asked
    assert net.reached is not None and net.reached.foreign and "foreign_profile" in net.origin


@pytest.mark.parametrize("device", ["", "cpu:0x"])
def test_devices_that_are_none(tmp_path: Path, device: str) -> None:
    with open_profile(tmp_path / "p") as profile:
        assert place_of(profile, FakeObserver()).foreign is False
    with pytest.raises((ConfigError, DeviceError), match="there is no device"):
        prune(Net(), torch.zeros(1, 3, 32, 32), target="latency=0.5x", profile=tmp_path / "p", device=device)


def test_a_net_that_is_cut_further_says_so(observer: FakeObserver, tmp_path: Path) -> None:
    net = prune(Net(), torch.zeros(1, 3, 32, 32), target="latency=0.8x", profile=tmp_path / "p")
    assert net.reached is not None and not net.reached.narrowed
    spared = next(label for label in net.channels.unit_labels.tolist() if label not in net.cut)
    net.apply_cut(net.cut | {spared})
    assert net.reached.narrowed and "more was cut since" in net.origin["target"]


def test_a_device_is_looked_for_by_the_first_rank_alone() -> None:
    """The others may run on machines that are not that device."""
    told: list[object] = []

    class Rank(Ranks):
        world = 2  # type: ignore[assignment]

        def from_first(self, compute):  # type: ignore[no-untyped-def]
            if self.first:
                told.append(compute())
            return told[0]

    def nowhere() -> Budget:
        raise DeviceError("there is no such device here")

    channels = PrunedModel.from_module(Net(), torch.zeros(1, 3, 32, 32)).channels
    half = Ratio(ratio=0.5, limits=WidthLimits(multiple=1, minimum=1))
    scores = np.arange(float(len(channels.unit_labels)))
    cuts = [
        share_budget(build, Rank(rank=rank)).select(channels, scores)
        for rank, build in ((0, lambda: half), (1, nowhere))
    ]
    assert cuts[0] == cuts[1] and cuts[0]
