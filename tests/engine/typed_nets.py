"""Small untrained nets in every precision, for the real builder: what the tests of nets and of patterns share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from edgeslim.exporter.engine import BuildOptions
from edgeslim.exporter.engine.build import Serialized, build
from edgeslim.exporter.engine.network import parse_network
from edgeslim.exporter.export import compile_graph, export
from edgeslim.exporter.precision import Fp16Options, Int8Options, open_calibration
from edgeslim.exporter.precision.variants import VariantRequest, add_variants, make_typed
from edgeslim.progress import Silent
from edgeslim.runtime import FrameRange
from edgeslim.runtime.backends.tensorrt.log import Log
from edgeslim.runtime.backends.tensorrt.module import import_tensorrt
from edgeslim.trainer.pruned import PrunedModel

from ..torch import nets

EVERY_GPU = ("75", "80", "86", "89", "120", "121")
REQUESTS = (
    VariantRequest(name="fp16", options=Fp16Options()),
    VariantRequest(name="int8", options=Int8Options(bias_images=2)),
    VariantRequest(name="int8-half", options=Int8Options(bias_images=2), half=True),
)
PRECISIONS = ("fp32", *(request.name for request in REQUESTS))


def pruned(make: Callable[[], nn.Module], shape: tuple[int, ...], cut: bool) -> PrunedModel:
    """The net with weights of a fixed seed, half of its channels cut."""
    torch.manual_seed(0)
    net = PrunedModel.from_module(nets.randomized(make()), torch.randn(shape))
    if cut:
        net.apply_cut(u.label for f in net.channels.families for u in f.units[1::2])
        assert net.cut
    return net


def frames(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Frames (H, W, C) for a net that takes images (N, C, H, W)."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*shape[2:], shape[1]), np.uint8) for _ in range(4)]


def write_bundle(folder: Path, make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Path:
    """A bundle of the pruned net with all variants."""
    bundle = export(pruned(make, shape, cut=True), folder / "net.bundle", frames=frames(shape))
    add_variants(bundle, REQUESTS, frames(shape), progress=Silent())
    return bundle


def typed_graphs(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Mapping[str, bytes]:
    """Precision -> the typed graph of the dense net, without a bundle around it."""
    colours = ((0.5,) * shape[1], (0.25,) * shape[1])
    model = compile_graph(pruned(make, shape, cut=False), *colours, True).shipped
    calibration = open_calibration(model, frames(shape)[:2])
    graphs = {"fp32": model, **{r.name: make_typed(model, r, calibration).model for r in REQUESTS}}
    return {name: bytes(ir.to_proto(graph).SerializeToString()) for name, graph in graphs.items()}


def build_graph(graph: bytes, shape: tuple[int, ...], targets: tuple[str, ...] = EVERY_GPU) -> Serialized:
    """An engine of TensorRT for RTX, for single frames. Raises as the builder does."""
    trt = import_tensorrt("tensorrt-rtx")
    log, size = Log(trt), (1, shape[2], shape[3])
    return build(
        trt,
        log,
        parse_network(trt, log, graph, typed=True, where="the net"),
        BuildOptions(backend="tensorrt-rtx", targets=targets),
        FrameRange(minimum=size, optimum=size, maximum=size),
        sparse=False,
        timings=None,
        progress=Silent(),
    )
