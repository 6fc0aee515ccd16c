"""The likeliest classes of a frame, by the runtime alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgeslim.errors import ConfigError
from edgeslim.exporter.bundle import write_bundle
from edgeslim.runtime import ImageSpec, Manifest, TensorSpec, classify, load

CLASSES = ("dark", "grey", "light")


def build_grey_model() -> bytes:
    """uint8 frame (N, H, W, 1) -> logits (N, 3) = mean brightness m times (-1, 0, 1) / 64 + (2, 1, 0)."""
    make, constant = onnx.helper.make_node, onnx.numpy_helper.from_array
    nodes = [
        make("Cast", ["frame"], ["pixels"], to=onnx.TensorProto.FLOAT),
        make("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        make("MatMul", ["mean", "slope"], ["scaled"]),
        make("Add", ["scaled", "offset"], ["logits"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "grey",
        [onnx.helper.make_tensor_value_info("frame", onnx.TensorProto.UINT8, ["N", "H", "W", 1])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 3])],
        [
            constant(np.array([1, 2], np.int64), "axes"),
            constant(np.array([[-1, 0, 1]], np.float32) / 64, "slope"),
            constant(np.array([2, 1, 0], np.float32), "offset"),
        ],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


@pytest.fixture
def bundle(tmp_path: Path, tiny_manifest: Callable[..., Manifest]) -> Path:
    manifest = dataclasses.replace(
        tiny_manifest(),
        task="classification",
        golden=None,
        inputs=(TensorSpec(name="frame", dtype="uint8", shape=("N", "H", "W", 1), layout="NHWC"),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", 3), layout="NC"),),
        image=ImageSpec(colour="grey", mean=(0.0,), std=(1.0,)),
        classes=CLASSES,
    )
    return write_bundle(tmp_path / "net.bundle", model=build_grey_model(), manifest=manifest, files={})


def frame(level: int) -> NDArray[np.uint8]:
    return np.full((5, 7, 1), level, np.uint8)


def test_outputs_have_no_batch_axis(bundle: Path) -> None:
    with load(bundle) as session:
        assert session.run(frame(0))["logits"].shape == (3,)
        assert session.run_batch(np.stack([frame(0)] * 4))["logits"].shape == (4, 3)


@pytest.mark.parametrize(("level", "name"), [(0, "dark"), (255, "light")])
def test_the_likeliest_come_first(bundle: Path, level: int, name: str) -> None:
    with load(bundle) as session:
        answers = classify(session, frame(level))
        logits = session.run(frame(level))["logits"].astype(np.float64)
    assert answers[0].name == name and len(answers) == 3
    assert [a.probability for a in answers] == sorted((a.probability for a in answers), reverse=True)
    assert sum(a.probability for a in answers) == pytest.approx(1)
    wanted = np.exp(logits) / np.exp(logits).sum()
    assert all(a.probability == pytest.approx(wanted[a.label]) and CLASSES[a.label] == a.name for a in answers)


def test_ties_keep_the_order_of_the_classes(bundle: Path) -> None:
    with load(bundle) as session:
        assert [a.label for a in classify(session, frame(64), most=2)] == [0, 1]


def test_a_bundle_of_another_task(intact_bundle: Path) -> None:
    with load(intact_bundle) as session, pytest.raises(ConfigError, match="an unstated task, not of classification"):
        classify(session, np.zeros((16, 24, 3), np.uint8))
