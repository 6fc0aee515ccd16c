"""An engine that is wrong is refused with the layers that are: on a stand-in with a fault planted in one of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeslim.errors import CertificateError
from edgeslim.exporter.engine import BuildOptions, parse_frames
from edgeslim.runtime.engines import EngineStore, engines_folder

from .bundles import _graph, serialised, write_tiny
from .conftest import BuildOnOrin, UseTensorRT
from .fake_tensorrt import Plan


def deep_model(seed: int = 0, half: bool = False) -> bytes:
    """Three convolutions, each with a ReLU behind it but the last."""
    generator = np.random.default_rng(seed)
    kind = np.float16 if half else np.float32
    weights = {
        name: generator.normal(size=(out, into, 3, 3)).astype(kind) / scale
        for name, out, into, scale in (("w1", 4, 3, 500), ("w2", 4, 4, 3), ("w3", 2, 4, 3))
    }
    nodes = [
        helper.make_node("Cast", ["frame"], ["pixels"], "cast", to=TensorProto.FLOAT16 if half else TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], "planes", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w1"], ["first"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["first"], ["first relu"], "relu1"),
        helper.make_node("Conv", ["first relu", "w2"], ["second"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["second"], ["second relu"], "relu2"),
        helper.make_node("Conv", ["second relu", "w3"], ["third"], "conv3", pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["third"], ["logits"], "out", to=TensorProto.FLOAT),
    ]
    return serialised(_graph(nodes, weights))


def refused(
    bundle: Path, build_on_orin: BuildOnOrin, options: BuildOptions | None = None, **more: Mapping[str, object]
) -> str:
    with pytest.raises(CertificateError) as raised:
        build_on_orin(bundle, options, **more)
    assert EngineStore(engines_folder(bundle)).engines() == ()
    assert raised.value.exit_code == 3 and "so it was not kept" in raised.value.message
    return raised.value.message


@pytest.mark.parametrize(("precision", "limit"), [("fp32", "0.001"), ("fp16", "0.05")])
@pytest.mark.parametrize(("value", "layer"), [("first", "w1"), ("second", "w2"), ("second relu", None)])
def test_the_layer_with_the_fault_is_named(
    value: str, layer: str | None, precision: str, limit: str,
    tmp_path: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin,
) -> None:  # fmt: skip
    bundle = write_tiny(tmp_path / "deep.bundle", model=deep_model(), variant_model=deep_model(half=True))
    plan = Plan(wrong_values={value: 1.0})
    use_tensorrt("103", plan)
    message = refused(bundle, build_on_orin, BuildOptions(precision=precision))
    assert "layer by layer, against ONNX Runtime" in message
    operator = "Relu" if layer is None else "Conv"
    assert f"first over {limit}: {operator} {value}" + ("," if layer is None else f" (weight {layer}),") in message
    assert re.search(r"worst: (Conv|Relu|Cast) ", message)
    if value != "first":
        assert re.search(r"before it Relu first relu, relative rms [01]", message)
    assert len(plan.built) == 2 and plan.built[0]["flags"] == plan.built[1]["flags"]


def test_the_second_engine_is_for_the_golden_frames_alone(
    tmp_path: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    """Every layer gets buffers for the largest frames: those of a wide range would not fit."""
    bundle = write_tiny(tmp_path / "deep.bundle", model=deep_model())
    plan = Plan(wrong_values={"second": 1.0})
    use_tensorrt("103", plan)
    refused(bundle, build_on_orin, BuildOptions(frames=parse_frames("1x8x8:1x16x24:4x64x64")))
    assert plan.built[0]["shapes"]["frame"][2] == (4, 64, 64, 3)
    assert set(plan.built[1]["shapes"]["frame"]) == {(1, 16, 24, 3)}


def test_a_fault_that_is_gone_with_the_fusion_is_said_to_be_there(
    tmp_path: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    bundle = write_tiny(tmp_path / "deep.bundle", model=deep_model())
    use_tensorrt("103", Plan(wrong_values={"second": 1.0}, wrong_where_fused=True))
    message = refused(bundle, build_on_orin)
    assert "does not have the fault: it is in what TensorRT fuses" in message
    assert re.search(r"There all 8 values lie within 0\.001; the worst is ", message)


def test_without_its_packages_it_says_so(
    tmp_path: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_tiny(tmp_path / "deep.bundle", model=deep_model())
    use_tensorrt("103", Plan(wrong_values={"second": 1.0}))
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    assert "its layers were not compared: onnx_ir is not installed here" in refused(bundle, build_on_orin)


def test_a_failure_of_the_comparison_itself_leaves_the_verdict(
    tmp_path: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    def fails(*given: object, **named: object) -> onnx.ModelProto:
        raise RuntimeError("of another kind")

    bundle = write_tiny(tmp_path / "deep.bundle", model=deep_model())
    use_tensorrt("103", Plan(wrong_values={"second": 1.0}))
    monkeypatch.setattr("edgeslim.exporter.precision.layers.compare_layers", fails)
    assert "its layers could not be compared: of another kind" in refused(bundle, build_on_orin)


def test_a_second_engine_that_is_not_built_leaves_the_verdict(
    tmp_path: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    class Once(Plan):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)

        @property
        def refuses(self) -> str | None:  # type: ignore[override]
            return "no implementation with so many outputs" if len(self.built) > 1 else None

        @refuses.setter
        def refuses(self, value: object) -> None:
            pass

    bundle = write_tiny(tmp_path / "deep.bundle", model=deep_model())
    use_tensorrt("103", Once(wrong_values={"second": 1.0}))
    message = refused(bundle, build_on_orin)
    assert "its layers could not be compared: TensorRT 10.3.0 built no engine: no implementation with so" in message
