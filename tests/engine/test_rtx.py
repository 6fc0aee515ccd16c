"""The real builder: TensorRT for RTX parses and builds on a machine without a GPU. What it builds runs on none here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeslim.errors import ConfigError, EngineError, UnsupportedGraphError
from edgeslim.exporter.engine import BuildOptions, Built, build_engine, parse_frames
from edgeslim.progress import Silent
from edgeslim.runtime import choose, read_bundle
from edgeslim.runtime.backends.tensorrt.backend import TensorRTBackend
from edgeslim.runtime.backends.tensorrt.log import Log
from edgeslim.runtime.backends.tensorrt.module import import_tensorrt
from edgeslim.runtime.engines.here import Here

from .bundles import serialised, write_tiny
from .fake_memory import FakeMemory

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed: pip install 'edgeslim[rtx]'")
NOWHERE = Here(problem="no GPU")


def build(bundle: Path, progress: Silent | None = None, **options: object) -> Built:
    chosen = BuildOptions(**{"backend": "tensorrt-rtx", "targets": ("86",), **options})  # type: ignore[arg-type]
    return build_engine(bundle, chosen, progress=progress or Silent(), here=NOWHERE)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_builds_typed_graphs(tiny: Path, precision: str) -> None:
    built = build(tiny, precision=precision)
    record = built.stored.record
    assert not built.reused and built.layers is not None and built.layers > 2
    assert len(built.stored.read()) == record.engine.bytes > 1000
    assert record.unchecked == "it was built for sm86; no GPU" and record.spec.compute_capability is None
    assert record.spec.frames == parse_frames("1x16x24")
    assert build(tiny, precision=precision).reused


@pytest.mark.parametrize("target", ["75", "80", "86", "89", "120", "121"])
def test_it_builds_for_every_gpu_it_knows(tiny: Path, target: str) -> None:
    built = build(tiny, targets=(target,))
    assert built.stored.path.name.startswith(f"fp32-sm{target}-") and built.stored.record.engine.bytes > 1000


def test_one_engine_may_be_for_several(tiny: Path) -> None:
    assert build(tiny, targets=("86", "89")).stored.path.name.startswith("fp32-sm86+sm89-")
    with pytest.raises(ConfigError, match="for compute capability 87; it knows 75, 80, 86, 89, 120, 121"):
        build(tiny, targets=("87",))


def test_options_reach_the_real_configuration(tiny: Path) -> None:
    options = {"workspace_bytes": 2**26, "level": 1, "max_tactics": 3, "tf32": True, "sparse": True}
    spec = build(tiny, **options).stored.record.spec
    assert set(spec.flags) == {"TF32", "SPARSE_WEIGHTS"}
    assert spec.settings == {"WORKSPACE": str(2**26), "builder_optimization_level": "1", "max_num_tactics": "3"}
    assert build(tiny, frames=parse_frames("1x8x8:1x16x24:4x32x32")).stored.record.spec.frames.maximum == (4, 32, 32)


def test_a_node_without_an_importer_is_named(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frame"], ["pixels"], "cast", to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["pixels"], ["planes"], "transpose", perm=[0, 3, 1, 2]),
            helper.make_node("Det", ["planes"], ["det"], "the determinant"),
            helper.make_node("Unsqueeze", ["det", "axes"], ["some"], "some"),
            helper.make_node("Unsqueeze", ["some", "axes"], ["logits"], "more"),
        ],
        "odd",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3, 1, 1])],
        [numpy_helper.from_array(np.array([2]), "axes")],
    )
    bundle = write_tiny(tmp_path / "odd.bundle", model=serialised(graph), sizes=[(1, 8, 8)])
    with pytest.raises(UnsupportedGraphError, match=r"node the determinant \(Det\)") as raised:
        build(bundle, frames=parse_frames("1x8x8"))
    assert "outside of the net" in raised.value.hint


def test_mixed_operands_are_refused_by_strong_typing(tmp_path: Path) -> None:
    """The reason why precision must be right in the graph: nothing is cast behind its back."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["pixels"], "cast", to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["pixels", "scale"], ["logits"], "half by float"),
    ]
    graph = helper.make_graph(
        nodes,
        "mixed",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, ["N", 16, 24, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT16, ["N", 16, 24, 3])],
        [numpy_helper.from_array(np.float32(2.0), "scale")],
    )
    bundle = write_tiny(tmp_path / "mixed.bundle", variant_model=serialised(graph))
    with pytest.raises((UnsupportedGraphError, EngineError), match=r"half by float|elementwise|type"):
        build(bundle, precision="fp16")


def test_what_it_says_of_engines_it_cannot_load(tiny: Path) -> None:
    """A real deserialisation: None, and the reason in the log. Without a driver it never comes to the engine itself."""
    data = build(tiny).stored.read()
    trt = import_tensorrt("tensorrt-rtx")
    from edgeslim.runtime.engines.here import look_here

    if look_here().compute_capability is not None:
        pytest.skip("there is a GPU here: tests/gpu loads engines")
    for broken in (data, data[:-100], b"", bytes(1000)):
        memory = FakeMemory()
        with pytest.raises(EngineError, match="cannot be loaded"):
            TensorRTBackend(broken, backend="tensorrt-rtx", memory=memory)
        assert memory.closed == 1
    assert Log(trt).reason("nothing yet") == "nothing yet"


def test_an_engine_for_other_gpus_is_passed_over_with_the_reason(tiny: Path) -> None:
    build(tiny)
    seen = Here(compute_capability="8.9", gpu="another")
    assert "built for sm86, this GPU is sm89" in choose(read_bundle(tiny), here=seen).passed_over["tensorrt-rtx"]
    fits = choose(read_bundle(tiny), here=Here(compute_capability="8.6", gpu="any"))
    assert fits.backend == "tensorrt-rtx" and "never run on the golden vectors" in fits.reason


def test_the_record_is_plain_json(tiny: Path) -> None:
    stored = build(tiny).stored
    table = json.loads(stored.path.with_suffix(".json").read_text())
    assert table["spec"]["targets"] == ["86"] and table["golden"] is None
    assert onnx.checker.check_model(onnx.load_model_from_string(read_bundle(tiny).model)) is None
