"""What channel analysis and removal take beyond torch.onnx.export; the promise is under 1 s for a 60-layer net."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from edgeslim.exporter import trace as trace_module
from edgeslim.exporter.channels import ChannelMap, analyze
from edgeslim.exporter.passes.fold_constants import fold_constants
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.trainer.models.mobilenetv3 import MobileNetV3LRASPP

REPEATS = 5


def main() -> None:
    """Print a row for the export itself and one for each part of what edgeslim adds."""
    net, example = MobileNetV3LRASPP("large", classes=2).eval(), torch.randn(2, 3, 64, 64)
    started = time.perf_counter()
    model = trace_module.trace(net, example)
    total = time.perf_counter() - started
    channels = analyze(model, set(net.state_dict()))
    cut = [unit.label for family in channels.families for unit in family.units[: family.width // 2]]
    layers = len(channels.layers)
    parts: dict[str, Callable[[], object]] = {
        "fold constants": lambda: fold_constants(model),
        "check at a second size": lambda: trace_module._agrees(net, model, (1, 3, 128, 128)),
        "analyse": lambda: analyze(model, set(net.state_dict())),
        "remove": lambda: remove_channels(model, channels, cut),
    }
    seconds = {name: _median(part) for name, part in parts.items()}
    added = sum(seconds.values())
    shown = ", ".join(f"{name} {value:.3f}" for name, value in seconds.items())
    print(f"| analysis + removal, {layers} layers | {added:.2f} s ({shown}) | {_size(channels)}; trace {total:.1f} s |")


def _median(part: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        part()
        times.append(time.perf_counter() - started)
    return median(times)


def _size(channels: ChannelMap) -> str:
    units = sum(family.width for family in channels.families)
    return f"{len(channels.model.graph)} nodes, {units} units in {len(channels.families)} families"
