"""Compact equals masked, or declined with the reason: one small net per pattern, random cuts, random statistics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edgeslim.exporter.cost import count_macs
from edgeslim.exporter.export import compile_graph, runner_from_graph
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.exporter.trace import runner_from_module
from edgeslim.trainer.models.mobilenetv3 import MobileNetV3LRASPP
from edgeslim.trainer.models.unet import UNet
from edgeslim.trainer.pruned import PrunedModel

from . import nets

EQUAL: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "plain": (nets.Plain, 2),
    "residual": (nets.Residual, 1),
    "option A shortcut": (nets.OptionA, 2),
    "dense block": (nets.Dense, 3),
    "squeeze-excitation": (nets.Gate, 2),
    "depthwise": (nets.Depthwise, 1),
    "depthwise multiplier 2": (lambda: nets.Depthwise(2), 1),
    "grouped": (nets.Grouped, 2),
    "chunk (C2f)": (nets.Chunk, 1),
    "split with sizes": (nets.Split, 4),
    "channel shuffle": (nets.Shuffle, 2),
    "flatten to linear": (nets.Flat, 2),
    "permuted linear": (nets.ChannelsLast, 2),
    "PReLU": (nets.Slope, 1),
    "shared convolution": (nets.Shared, 1),
    "transposed convolution": (lambda: nets.Upsampled("transpose"), 3),
    "nearest resize": (lambda: nets.Upsampled("nearest"), 3),
    "bilinear resize": (lambda: nets.Upsampled("bilinear"), 3),
    "learnt shift": (lambda: nets.Shift(True), 2),
    "hard-coded width": (nets.HardCoded, 2),
    "group norm": (nets.Grouping, 2),
    "pixel shuffle": (nets.Shuffling, 2),
    "unet": (lambda: UNet(width=8, depth=2), 12),
    "unet resize": (lambda: UNet(width=8, depth=2, upsample="resize"), 12),
}


def pruned(net: nn.Module, share: float = 0.5, seed: int = 0) -> PrunedModel:
    """The net with a random share of every family cut."""
    model = PrunedModel.from_module(nets.randomized(net, seed), torch.randn(1, 3, 32, 32))
    generator = np.random.default_rng(seed)
    model.apply_cut(
        family.units[i].label
        for family in model.channels.families
        for i in generator.permutation(family.width)[: int(family.width * share)]
    )
    return model


def largest_error(model: PrunedModel, shape: tuple[int, ...]) -> float:
    """|compact ONNX - masked torch|, relative to the largest output."""
    images = np.random.default_rng(1).standard_normal(shape, np.float32)
    compact = remove_channels(model.graph, model.channels, model.cut)
    wanted = runner_from_module(model.module)(images)
    seen = runner_from_graph(compact)(images)
    assert [a.shape for a in seen] == [b.shape for b in wanted]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(seen, wanted))


@pytest.mark.parametrize("name", EQUAL)
def test_compact_equals_masked(name: str) -> None:
    build, families = EQUAL[name]
    model = pruned(build())
    assert len(model.channels.families) == families, model.coverage
    assert model.cut
    for shape in ((1, 3, 32, 32), (3, 3, 32, 32)):
        assert largest_error(model, shape) < 1e-5
    before, after = (count_macs(g, (1, 3, 32, 32)) for g in (model.channels.model, remove_channels(
        model.graph, model.channels, model.cut)))  # fmt: skip
    assert after < before


@pytest.mark.parametrize("name", EQUAL)
def test_each_unit_alone(name: str) -> None:
    """Cutting one unit equals masking it: a missed coupling cannot hide behind another."""
    build, _ = EQUAL[name]
    model = PrunedModel.from_module(nets.randomized(build()), torch.randn(1, 3, 32, 32))
    for family in model.channels.families:
        fresh = PrunedModel(nets.randomized(build()), torch.randn(1, 3, 32, 32), model.channels)
        fresh.apply_cut([family.units[family.width // 2].label])
        assert largest_error(fresh, (1, 3, 32, 32)) < 1e-5, family.name


DECLINED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "sigmoid": (nets.SigmoidBetween, "b.0.weight", "arrive as a non-zero constant"),
    "constant shift": (lambda: nets.Shift(False), "b.0.weight", "arrive as a non-zero constant"),
    "output": (nets.Plain, "head.weight", "graph output"),
}


@pytest.mark.parametrize("name", DECLINED)
def test_declined_with_the_reason(name: str) -> None:
    build, layer, reason = DECLINED[name]
    model = pruned(build())
    entry = next(e for e in model.coverage if e.layer == layer)
    assert entry.width_after == entry.width_before
    assert entry.reason is not None and reason in entry.reason
    assert largest_error(model, (2, 3, 32, 32)) < 1e-5  # what was cut elsewhere is still exact


SAFE: dict[str, Callable[[], nn.Module]] = {
    "joined on height": nets.JoinedOnHeight,
    "channels to space": nets.ChannelsToSpace,
    "zero slope": nets.ZeroSlope,
    "divided": nets.Divided,
    "learnt image": nets.Positions,
}


@pytest.mark.parametrize("name", SAFE)
def test_equal_or_declined(name: str) -> None:
    """Nets in which a channel is easily taken for silent, or an axis for channels: never wrong."""
    for share in (0.5, 0.9):
        assert largest_error(pruned(SAFE[name](), share), (2, 3, 32, 32)) < 1e-5


def test_a_parameter_that_is_zero_now_is_not_zero_for_good() -> None:
    model = PrunedModel.from_module(nets.ZeroGamma().eval(), torch.randn(1, 3, 32, 32))
    trained = nets.randomized(nets.ZeroGamma())
    with torch.no_grad():
        trained.get_parameter("gamma").fill_(0.7)
    model.load_dense_state(trained.state_dict())
    model.apply_cut(u.label for f in model.channels.families for u in f.units[: f.width // 2])
    assert largest_error(model, (1, 3, 32, 32)) < 1e-5


def test_width_as_a_number_stays_exact() -> None:
    model = pruned(nets.WidthAsNumber())
    assert largest_error(model, (2, 3, 32, 32)) < 1e-5


def test_nothing_to_prune() -> None:
    model = PrunedModel.from_module(nets.Fixed(), torch.randn(1, 3, 32, 32))
    assert model.channels.families == ()
    assert model.coverage.summary.startswith("pruned 0 of 1 layers; 1 kept: 1 graph output")


@pytest.mark.slow
def test_mobilenet_is_cut_everywhere_but_at_its_output() -> None:
    model = pruned(MobileNetV3LRASPP("small", classes=3))
    assert largest_error(model, (2, 3, 64, 96)) < 1e-5
    stayed = [e for e in model.coverage if e.width_after == e.width_before]
    assert len(stayed) == 2 and all("graph output" in (e.reason or "") for e in stayed)


def test_a_planted_fault_is_seen() -> None:
    """The comparison itself must be able to fail: one channel off by one index."""
    model = pruned(nets.Residual())
    compact = compile_graph(model, (0.0,) * 3, (1.0,) * 3).compact
    weight = next(v for name, v in compact.graph.initializers.items() if name == "head.weight")
    assert weight.const_value is not None
    rolled = np.roll(weight.const_value.numpy(), 1, axis=1)
    import onnx_ir as ir

    weight.const_value = ir.tensor(rolled, name="head.weight")
    images = np.random.default_rng(1).standard_normal((1, 3, 32, 32), np.float32)
    wanted, seen = runner_from_module(model.module)(images)[0], runner_from_graph(compact)(images)[0]
    assert float(np.abs(seen - wanted).max()) > 1e-3
