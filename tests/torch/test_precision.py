"""Real nets in float16 and int8: typed, near, and the patterns of the zoo."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from edgeslim.exporter.passes.embed_preprocess import embed_preprocess
from edgeslim.exporter.passes.simplify import simplify
from edgeslim.exporter.precision import (
    Calibration,
    Int8Options,
    compare_layers,
    measure_deviation,
    open_calibration,
    quantize,
    simulate,
    to_float16,
)
from edgeslim.exporter.precision.typed import mixed_operands
from edgeslim.exporter.trace import trace
from edgeslim.trainer.models.registry import build_model
from tests.torch.nets import randomized
from tests.zoo import blocks, patterns
from tests.zoo.check import alive

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
NETS = ("unet", "mobilenetv3-small", "resnet20")
HALF_NEAR = 1e-2
NEAR = {"unet": 0.15, "mobilenetv3-small": 0.4, "resnet20": 0.15}
"""Of int8 with random weights, relative rms: no accuracy, but nothing is broken."""
JUMPS = {"where": 0.1}
"""Patterns that compare numbers: a rounded one may fall on the other side. Relative rms in float16."""
PATTERNS = patterns.EQUAL | blocks.EQUAL


@functools.cache
def shipped(name: str) -> tuple[ir.Model, Calibration]:
    """A net as a bundle holds it, from frame to answer, and frames for it."""
    torch.manual_seed(0)
    args = {"width": 8, "depth": 2} if name == "unet" else {}
    net = randomized(build_model(name, args, classes=5))
    size = 32 if name == "resnet20" else 64
    example = torch.randn(1, 3, size, size)
    graph = embed_preprocess(simplify(trace(alive(net, example), example)).model, MEAN, STD)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(graph)))
    frames = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), dtype=np.uint8)
    return model, open_calibration(model, [frames])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_float16_is_typed_and_near(name: str) -> None:
    model, frames = shipped(name)
    halved = to_float16(model, frames)
    assert not mixed_operands(halved.model)
    assert {i.value for i in halved.islands} >= {"frame/pixels", "frame/scaled", "frame/shifted"}
    assert len(halved.islands) < len(list(model.graph)) / 4
    for off in measure_deviation(model, halved.model, frames):
        assert 0 < off.relative_rms < HALF_NEAR, off


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize("name", NETS)
def test_int8_is_near_in_both_placements_and_smaller(name: str, placement: str) -> None:
    model, frames = shipped(name)
    made = quantize(model, frames, Int8Options(placement=placement, int8_weights=True))
    run = simulate(made.model, integer_kernels=placement == "onnxruntime")
    for off in measure_deviation(model, made.model, frames, run):
        assert 0 < off.relative_rms < NEAR[name], off
    assert compare_layers(model, made.model, frames, 2.0).first is None
    sizes = [len(ir.to_proto(m).SerializeToString()) for m in (model, made.model)]
    assert len(made.layers) > 5 and (sizes[1] < sizes[0] or name == "mobilenetv3-small")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_float16_around_int8_is_typed_and_near(name: str) -> None:
    model, frames = shipped(name)
    both = to_float16(quantize(model, frames, Int8Options(equalize=True)).model, frames).model
    assert not mixed_operands(both)
    for off in measure_deviation(model, both, frames):
        assert off.relative_rms < NEAR[name], off


@pytest.mark.slow
def test_the_patterns_of_the_zoo_have_every_precision() -> None:
    """Nothing crashes, everything is typed, and what is declined has a reason."""
    for name, pattern in PATTERNS.items():
        torch.manual_seed(0)
        example = torch.randn(pattern.shape)
        graph = simplify(trace(alive(pattern.build(), example), example)).model
        model = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(graph)))
        rows = np.random.default_rng(0).standard_normal((3, *pattern.shape[1:])).astype(np.float32)
        frames = open_calibration(model, [rows])
        halved = to_float16(model, frames).model
        assert not mixed_operands(halved), name
        assert max(d.relative_rms for d in measure_deviation(model, halved, frames)) < JUMPS.get(name, HALF_NEAR), name
        for placement in ("tensorrt", "onnxruntime"):
            made = quantize(model, frames, Int8Options(placement=placement))
            assert all(d.reason for d in made.declined), name
            assert max(d.relative_rms for d in measure_deviation(model, made.model, frames)) < 0.2, (name, placement)
            if placement == "tensorrt":
                assert not mixed_operands(to_float16(made.model, frames).model), name
