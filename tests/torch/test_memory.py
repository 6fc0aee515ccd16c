"""Peak memory, file and parameters of real nets under random plans, beside what is real."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from edgeslim.bench.arena import arena_from_profile
from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.cost import count_parameters
from edgeslim.exporter.memory import (
    as_written,
    estimate_memory,
    liveness,
    model_file,
    moments,
    parameter_terms,
    shipped_graph,
)
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.runtime.backends.onnxruntime import OnnxRuntimeBackend
from edgeslim.trainer.models import build_model
from edgeslim.trainer.pruned import PrunedModel

NETS: Mapping[str, tuple[str, Mapping[str, object], int]] = {
    "unet": ("unet", {"width": 16, "depth": 2}, 64),
    "resnet20": ("resnet20", {}, 32),
    "mobilenetv3": ("mobilenetv3-small", {}, 64),
    "lenet": ("lenet-5", {}, 28),
}


@cache
def analysed(name: str) -> ChannelMap:
    model, args, size = NETS[name]
    torch.manual_seed(0)
    colours = 1 if name == "lenet" else 3
    net = build_model(model, args, classes=7, in_channels=colours).eval()  # type: ignore[arg-type]
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # biases that are all zero would be stored once
            module.bias.data.uniform_(-0.5, 0.5)
    return PrunedModel.from_module(net, torch.randn(1, colours, size, size)).channels


def frame(name: str) -> tuple[int, ...]:
    size = NETS[name][2]
    return (1, size, size, 1 if name == "lenet" else 3)


def random_plan(channels: ChannelMap, multiple: int, seed: int) -> tuple[np.ndarray, frozenset[int]]:
    generator = np.random.default_rng(seed)
    widths, cut = [], set[int]()
    for family in channels.families:
        drawn = int(generator.integers(max(1, family.width // 4), family.width + 1))
        width = min(family.width, -(-drawn // multiple) * multiple)
        widths.append(width)
        cut |= set(family.labels[generator.permutation(family.width)[width:]].tolist())
    return np.array(widths, np.int64), frozenset(cut)


@pytest.mark.parametrize("multiple", [1, 16])
@pytest.mark.parametrize("name", NETS)
def test_a_plan_is_as_the_planner_was_told(name: str, multiple: int) -> None:
    channels = analysed(name)
    dense = shipped_graph(channels)
    peak, file = moments(channels, as_written(dense, frame(name))), model_file(channels, dense)
    widths, cut = random_plan(channels, multiple, seed=multiple)
    compact = shipped_graph(channels, cut)
    assert peak.peak_bytes(widths) == liveness(as_written(compact, frame(name))).peak_bytes
    assert file.bytes_at(widths) == pytest.approx(len(ir.to_proto(compact).SerializeToString()), rel=2e-3)
    counted = count_parameters(remove_channels(channels.model, channels, cut), channels.parameters)
    assert round(parameter_terms(channels).total(widths)) == counted


@pytest.mark.parametrize("multiple", [0, 1, 16])
@pytest.mark.parametrize("name", NETS)
def test_the_estimate_beside_the_real_arena(name: str, multiple: int, tmp_path: Path) -> None:
    """Exact by the rules of this ONNX Runtime's planner; another version may have others, so a little is allowed."""
    channels = analysed(name)
    cut = random_plan(channels, multiple, seed=3)[1] if multiple else frozenset()
    graph = shipped_graph(channels, cut)
    told, real = estimate_memory(graph, frame(name)), _real_bytes(graph, frame(name), tmp_path)
    assert told.arena_bytes == pytest.approx(real, rel=0.02)
    assert 0.6 * real <= told.live_bytes <= 1.01 * real


def _real_bytes(graph: ir.Model, shape: tuple[int, ...], folder: Path) -> int:
    with OnnxRuntimeBackend(ir.to_proto(graph).SerializeToString(), profile=folder / "profile") as backend:
        for _ in range(3):
            backend.run({backend.inputs[0].name: np.zeros(shape, np.uint8)})
        found = arena_from_profile(json.loads(backend.end_profile().read_bytes()))
    assert found is not None
    return found.activation_bytes
