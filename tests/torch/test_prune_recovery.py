"""Pruning a module with calibration images: what the cut did is made up for, and everything after it still holds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import edgeslim
from edgeslim.errors import ConfigError, DataError
from edgeslim.exporter.graph_runner import runner_from_graph
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.trainer.compact import mask_state

from . import nets

IMAGES = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(3))
UNSEEN = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(4))
NETS: dict[str, Callable[[], nn.Module]] = {
    "residual": nets.Residual,
    "option A shortcut": nets.OptionA,
    "dense block": nets.Dense,
    "gate": nets.Gate,
    "depthwise": nets.Depthwise,
    "grouped": nets.Grouped,
    "chunk": nets.Chunk,
    "shuffle": nets.Shuffle,
    "flatten": nets.Flat,
    "shared": nets.Shared,
    "resized": lambda: nets.Upsampled("bilinear"),
}


@pytest.fixture(autouse=True)
def same_weights_in_every_run() -> None:
    """What a correction buys on images that it has not seen is no certainty, and depends on the net."""
    torch.manual_seed(0)


def outputs(module: nn.Module) -> Tensor:
    module.eval()
    with torch.no_grad():
        return torch.as_tensor(module(UNSEEN))


def error(seen: nn.Module, wanted: nn.Module) -> float:
    return float((outputs(seen) - outputs(wanted)).norm() / outputs(wanted).norm())


@pytest.mark.parametrize("name", NETS)
def test_the_net_comes_nearer_to_what_it_was_and_stays_prunable(name: str) -> None:
    net = nets.randomized(NETS[name]())
    bare = edgeslim.prune(net, IMAGES[:1], ratio=0.4, calibration=IMAGES, recovery=[])
    pruned = edgeslim.prune(net, IMAGES[:1], ratio=0.4, calibration=IMAGES.split(8))
    assert bare.recovery is None and pruned.recovery is not None and pruned.plan == bare.plan
    (gain,) = pruned.recovery.gains
    assert gain.method == "least_squares"
    if gain.kept:
        assert gain.after < gain.before and error(pruned.module, net) < error(bare.module, net)
    masked = pruned.module.state_dict()
    for key, tensor in mask_state(masked, pruned.plan).items():
        assert torch.equal(tensor, masked[key]), key  # what was cut is still silent
    compact = runner_from_graph(remove_channels(pruned.graph, pruned.channels, pruned.cut))
    np.testing.assert_allclose(compact(UNSEEN.numpy())[0], outputs(pruned.module).numpy(), rtol=1e-4, atol=1e-4)


def test_a_recovery_belongs_to_its_cut() -> None:
    pruned = edgeslim.prune(nets.randomized(nets.Gate()), IMAGES[:1], ratio=0.2, calibration=IMAGES)
    assert pruned.recovery is not None
    pruned.apply_cut(pruned.cut | {int(next(u for u in pruned.channels.unit_labels if u not in pruned.cut))})
    assert pruned.recovery is None


def test_a_loader_of_labelled_images_calibrates_without_its_labels() -> None:
    net = nets.randomized(nets.Residual())
    loader = DataLoader(TensorDataset(IMAGES, torch.arange(len(IMAGES))), batch_size=8)
    plain = edgeslim.prune(net, IMAGES[:1], ratio=0.4, calibration=IMAGES.split(8))
    labelled = edgeslim.prune(net, IMAGES[:1], ratio=0.4, calibration=loader)
    assert labelled.plan == plain.plan
    assert all(torch.equal(t, plain.module.state_dict()[n]) for n, t in labelled.module.state_dict().items())


@pytest.mark.parametrize("name", NETS)
def test_training_starts_from_the_corrected_net(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the statistics of a batch the net answers much as it does by those it remembers, and those answers stay."""
    net = nets.randomized(NETS[name]())
    settled = edgeslim.prune(net, IMAGES[:1], ratio=0.4, calibration=IMAGES)
    monkeypatch.setattr("edgeslim.trainer.pruned.settle", lambda *given: {})
    plain = edgeslim.prune(net, IMAGES[:1], ratio=0.4, calibration=IMAGES)
    torch.testing.assert_close(outputs(settled.module), outputs(plain.module), rtol=1e-3, atol=1e-4)
    masked = settled.module.state_dict()
    for key, tensor in mask_state(masked, settled.plan).items():
        assert torch.equal(tensor, masked[key]), key

    def change(module: nn.Module) -> float:
        with torch.no_grad():
            wanted, seen = module.eval()(IMAGES), copy.deepcopy(module).train()(IMAGES)
        return float((seen - wanted).norm() / wanted.norm())

    before, after = change(plain.module), change(settled.module)
    assert after <= before + 1e-4
    if name in ("residual", "option A shortcut"):
        assert after < 0.5 * before


def test_most_nets_gain() -> None:
    torch.manual_seed(0)
    gains = {}
    for name in ("residual", "dense block", "grouped", "chunk", "depthwise"):
        net = nets.randomized(NETS[name]())
        found = edgeslim.prune(net, IMAGES[:1], ratio=0.4, calibration=IMAGES).recovery
        assert found is not None
        gains[name] = found.gains[0].after / found.gains[0].before
    assert sorted(gains.values())[2] < 0.8 and max(gains.values()) <= 1.0, gains


def test_a_corrected_net_has_a_certificate(tmp_path: Path) -> None:
    net = nets.randomized(nets.Residual())
    pruned = edgeslim.prune(net, IMAGES[:1], target="macs=0.6x", calibration=IMAGES)
    assert pruned.recovery is not None and pruned.recovery.gains[0].kept
    manifest = edgeslim.export(pruned, tmp_path / "net.bundle")
    assert manifest is not None
    with edgeslim.runtime.load(tmp_path / "net.bundle") as session:
        session.verify_golden()


def test_the_dense_module_is_not_changed() -> None:
    net = nets.randomized(nets.Residual())
    before = {name: t.clone() for name, t in net.state_dict().items()}
    edgeslim.prune(net, IMAGES[:1], ratio=0.5, calibration=IMAGES)
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())


def test_a_single_image_is_enough_to_run_on() -> None:
    pruned = edgeslim.prune(nets.randomized(nets.Residual()), IMAGES[:1], ratio=0.5, calibration=IMAGES[:1])
    assert pruned.recovery is not None and pruned.recovery.unseen == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"recovery": ["least_squares"]}, "recovery least_squares looks at feature maps"),
        ({"criterion": "reconstruction"}, "criterion reconstruction looks at feature maps"),
        ({"recovery": ["magic"], "calibration": IMAGES}, "recovery .'magic'. is unknown"),
        ({"recovery": "twins", "calibration": IMAGES}, "recovery 'twins' is unknown"),
    ],
)
def test_an_option_that_is_wrong(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        edgeslim.prune(nets.Plain(), IMAGES[:1], ratio=0.5, **options)  # type: ignore[arg-type]


def test_images_of_a_size_that_the_net_does_not_take() -> None:
    with pytest.raises(DataError, match="calibration input 0"):
        edgeslim.prune(nets.Flat(), IMAGES[:1], ratio=0.5, calibration=torch.rand(4, 3, 20, 20))
