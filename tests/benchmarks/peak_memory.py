"""Peak memory and file size, estimated and real: `python -m tests.benchmarks.peak_memory [--zoo]`.

Real nets, dense and under random plans: of every plan the arena that ONNX Runtime really takes (bench/arena.py), and
what is said of it without running the plan. With --zoo the same of the small nets of tests/zoo/patterns.py, at their
own sizes. Sizes are the same in every run on one kind of CPU; only the layout of convolutions depends on its
instructions.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from edgeslim.bench.arena import arena_from_profile
from edgeslim.bench.result import ArenaUse
from edgeslim.errors import EdgeslimError
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

from ..zoo import blocks, patterns

NETS = (
    ("unet", {"width": 16}, 192),
    ("unet", {"width": 16}, 256),
    ("unet", {"width": 32}, 192),
    ("unet", {"width": 32}, 256),
    ("unet", {"width": 16, "upsample": "resize"}, 256),
    ("resnet56", {}, 32),
    ("mobilenetv3-large", {}, 192),
    ("lenet-5", {}, 28),
    ("vgg16-bn", {}, 32),
)
PLANS = ((16, 1), (16, 2), (16, 3), (1, 4), (1, 5), (1, 6))
"""(widths are multiples of, seed)."""
RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One net under one plan. The estimates as shares of the real arena's activations above or below it."""

    net: str
    plan: str
    real_bytes: int
    scratch: float
    """What was in use at the worst moment of all runs, the first one and the allocator's rounding included."""
    arena: float
    live: float
    written: float
    moments: float
    file: float
    parameters: float


def main(arguments: list[str]) -> None:
    """Print a row a plan, then median, worst below and worst above for every estimate and kind of plan."""
    warnings.simplefilter("ignore")  # torch's exporter warns about itself
    torch.set_num_threads(1)
    rows = []
    print("| net | plan | real, bytes | in use | arena | live | as written | moments | file | parameters |")
    print("|---" * 10 + "|")
    for row in _zoo() if "--zoo" in arguments else _nets():
        rows.append(row)
        print(
            f"| {row.net} | {row.plan} | {row.real_bytes:,} | {row.scratch:+.1%} | {row.arena:+.1%} | {row.live:+.1%} "
            f"| {row.written:+.1%} | {row.moments:+.1%} | {row.file:+.2%} | {row.parameters:+.2%} |",
            flush=True,
        )
    print("\n| plans | n | estimate | median | lowest | highest | within 5 % |\n|---|---|---|---|---|---|---|")
    for kind in dict.fromkeys(row.plan.split(",")[0] for row in rows):
        own = [row for row in rows if row.plan.startswith(kind)]
        for name in ("arena", "live", "written", "moments", "file"):
            errors = [getattr(row, name) for row in own]
            near = sum(abs(error) <= 0.05 for error in errors)
            print(
                f"| {kind} | {len(own)} | {name} | {median(errors):+.1%} | {min(errors):+.1%} | {max(errors):+.1%} "
                f"| {near} |"
            )


def _nets() -> Iterator[Row]:
    for name, args, size in NETS:
        torch.manual_seed(0)
        colours = 1 if name.startswith("lenet") else 3
        net = build_model(name, args, classes=11, in_channels=colours)
        label = " ".join([name, *map(str, args.values()), f"{size}x{size}"])
        yield from _rows(label, net, (1, colours, size, size), PLANS)


def _zoo() -> Iterator[Row]:
    for name, pattern in {**patterns.EQUAL, **blocks.EQUAL}.items():
        torch.manual_seed(0)
        try:
            yield from _rows(name, pattern.build(), pattern.shape, ((1, 1),))
        except EdgeslimError as error:
            print(f"{name}: {error.message}", file=sys.stderr)


def _rows(label: str, net: nn.Module, shape: tuple[int, ...], plans: tuple[tuple[int, int], ...]) -> Iterator[Row]:
    _as_if_trained(net)
    channels = PrunedModel.from_module(net.eval(), torch.randn(shape)).channels
    dense = shipped_graph(channels)
    frames = (shape[0], *shape[2:], shape[1])
    planner, file = moments(channels, as_written(dense, frames)), model_file(channels, dense)
    learnt = parameter_terms(channels)
    for multiple, seed in ((0, 0), *plans):
        widths, cut = random_plan(channels, multiple, seed)
        if channels.emptied(cut):
            continue
        graph = shipped_graph(channels, cut) if cut else dense
        model = ir.to_proto(graph).SerializeToString()
        arena = real_arena(model, frames)
        real, told = arena.activation_bytes, estimate_memory(graph, frames)
        counted = count_parameters(remove_channels(channels.model, channels, cut), channels.parameters)
        yield Row(
            net=label,
            plan="dense" if not cut else f"{'multiples of 16' if multiple == 16 else 'any widths'}, seed {seed}",
            real_bytes=real,
            scratch=(arena.peak_bytes - arena.packed_weight_bytes) / real - 1,
            arena=told.arena_bytes / real - 1,
            live=told.live_bytes / real - 1,
            written=liveness(as_written(graph, frames)).peak_bytes / real - 1,
            moments=planner.peak_bytes(widths) / real - 1,
            file=file.bytes_at(widths) / len(model) - 1,
            parameters=learnt.total(widths) / counted - 1,
        )


def _as_if_trained(net: nn.Module) -> None:
    """Untrained batch norms fold into biases that are all zero, and equal ones are stored once."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.affine:
            module.running_mean.uniform_(-0.5, 0.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)


def random_plan(channels: ChannelMap, multiple: int, seed: int) -> tuple[np.ndarray, frozenset[int]]:
    """(families,) widths from a quarter up to all, rounded up to a multiple, and labels to cut; 0: nothing is cut."""
    generator = np.random.default_rng(seed)
    widths, cut = [], set[int]()
    for family in channels.families:
        width = family.width
        if multiple:
            drawn = int(generator.integers(max(1, width // 4), width + 1))
            width = min(width, -(-drawn // multiple) * multiple)
        widths.append(width)
        cut |= set(family.labels[generator.permutation(family.width)[width:]].tolist())
    return np.array(widths, np.int64), frozenset(cut)


def real_arena(model: bytes, shape: tuple[int, ...]) -> ArenaUse:
    """What ONNX Runtime's profile says of a session, one thread."""
    frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with (
        tempfile.TemporaryDirectory() as folder,
        OnnxRuntimeBackend(model, profile=Path(folder) / "profile") as backend,
    ):
        for _ in range(RUNS):
            backend.run({backend.inputs[0].name: frame})
        found = arena_from_profile(json.loads(backend.end_profile().read_bytes()))
    if found is None:
        raise SystemExit("this ONNX Runtime's profile has no memory statistics")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
