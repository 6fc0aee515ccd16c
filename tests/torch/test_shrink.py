"""Plans replayed on modules: a fresh instance, a file, an optimiser in the middle of its work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import edgeslim
from edgeslim.errors import CheckpointError, PlanError
from edgeslim.exporter.plan import PruningPlan
from edgeslim.trainer.models.unet import UNet
from edgeslim.trainer.pruned import PrunedModel

from . import nets

EXAMPLE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(1))


class Norms(nets.Plain):
    """Norms that know their width in three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d = nn.Conv2d(8, 8, 3, padding=1), nn.ConvTranspose2d(8, 8, 2, 2, groups=8)
        self.group, self.instance = nn.GroupNorm(4, 8), nn.InstanceNorm2d(8, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.group(self.c(self.a(x))))
        return self.head(self.b(torch.relu(self.instance(self.d(x)))))


def pruned(build: Callable[[], nn.Module]) -> PrunedModel:
    torch.manual_seed(0)
    net = PrunedModel.from_module(nets.randomized(build()), EXAMPLE)
    net.apply_cut(u.label for f in net.channels.families for u in f.units[: f.width // 2])
    assert net.cut
    return net


@pytest.mark.parametrize("build", [nets.Plain, nets.Depthwise, nets.Shared, Norms, lambda: UNet(width=4, depth=1)])
def test_a_fresh_instance_and_two_files_bring_the_net_back(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    net = pruned(build)
    net.save(tmp_path / "small")
    assert {f.name for f in (tmp_path / "small").iterdir()} == {"checkpoint.json", "model.safetensors", "plan.json"}
    small = edgeslim.load_compact(tmp_path / "small", build()).eval()
    assert type(small) is type(net.module)
    with torch.no_grad():
        assert torch.equal(small(IMAGES), net.compact().eval()(IMAGES))
        torch.testing.assert_close(small(IMAGES), net.module.eval()(IMAGES), rtol=1e-4, atol=1e-5)
    plan = PruningPlan.from_json((tmp_path / "small" / "plan.json").read_text())
    shapes = {name: t.shape for name, t in plan.apply(build()).state_dict().items()}
    assert shapes == {name: t.shape for name, t in small.state_dict().items()}


def test_norms_and_depthwise_layers_know_their_new_widths() -> None:
    small = pruned(Norms).compact()
    assert repr(small.get_submodule("group")).startswith("GroupNorm(2, 4,")
    assert repr(small.get_submodule("instance")).startswith("InstanceNorm2d(4,")
    layer = small.get_submodule("d")
    assert isinstance(layer, nn.ConvTranspose2d)
    assert (layer.in_channels, layer.out_channels, layer.groups) == (4, 4, 4)


def test_files_of_another_net_are_refused(tmp_path: Path) -> None:
    net = pruned(nets.Plain)
    net.save(tmp_path / "small")
    with pytest.raises(PlanError, match=r"the plan cuts a\.0\.weight, which this model lacks"):
        edgeslim.load_compact(tmp_path / "small", UNet(width=4, depth=1))
    with pytest.raises(PlanError, match=r"the plan cuts .* along axis \d of width \d+, here its shape is"):
        pruned(lambda: UNet(width=4, depth=1)).plan.apply(UNet(width=8, depth=1))
    index = json.loads((tmp_path / "small" / "checkpoint.json").read_text())
    del index["files"]["plan.json"]
    (tmp_path / "small" / "checkpoint.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="has no plan"):
        edgeslim.load_compact(tmp_path / "small", nets.Plain())

    class Longer(nets.Plain):
        def __init__(self) -> None:
            super().__init__()
            self.extra = nn.Linear(2, 2)

    net.save(tmp_path / "small")
    with pytest.raises(CheckpointError, match="does not fit Longer"):
        edgeslim.load_compact(tmp_path / "small", Longer())


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_an_optimiser_goes_on_where_it_was(kind: str) -> None:
    """One step of the masked net and one of the compact net, from the same memory, are the same step."""
    net = pruned(nets.Residual)
    module = net.module.eval()
    other = nn.Parameter(torch.ones(2))
    optimizer: torch.optim.Optimizer
    if kind == "sgd":
        optimizer = torch.optim.SGD([{"params": module.parameters(), "lr": 0.05}, {"params": [other]}], 0.1, 0.9)
    else:
        optimizer = torch.optim.AdamW([{"params": module.parameters(), "lr": 0.05}, {"params": [other]}])
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    def step(trained: nn.Module) -> None:
        optimizer.zero_grad()
        trained(IMAGES).square().mean().backward()
        optimizer.step()
        schedule.step()

    step(module)
    net.hold_masks()
    remembered = {id(p): dict(optimizer.state[p]) for p in module.parameters()}
    assert all(remembered.values())
    small = net.compact(optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.025  # the schedule goes along
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in small.parameters()}
    assert optimizer.param_groups[1]["params"] == [other]
    for parameter in small.parameters():
        for value in optimizer.state[parameter].values():
            assert not isinstance(value, torch.Tensor) or value.ndim == 0 or value.shape == parameter.shape
    masked = pruned(nets.Residual)
    twin = torch.optim.SGD(masked.module.eval().parameters(), 0.05, 0.9) if kind == "sgd" else None
    step(small)
    if twin is not None:
        for rate in (0.05, 0.025):
            twin.param_groups[0]["lr"] = rate
            twin.zero_grad()
            masked.module(IMAGES).square().mean().backward()
            twin.step()
            masked.hold_masks()
        with torch.no_grad():
            torch.testing.assert_close(small(IMAGES), masked.module(IMAGES), rtol=1e-4, atol=1e-5)
