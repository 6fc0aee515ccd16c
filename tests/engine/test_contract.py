"""No member of TensorRT is touched that some version lacks, unless it is asked for first.

Twice: by reading the sources, and by running the whole way from bundle to frames on a stand-in of every version, whose
classes raise AttributeError for what that version does not have.
"""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from edgeslim.exporter.engine import BuildOptions
from edgeslim.runtime import load
from edgeslim.runtime.backends.tensorrt.backend import TensorRTBackend

from .conftest import BuildOnOrin, UseTensorRT
from .fake_memory import FakeMemory
from .fake_tensorrt import NUMBERS, Plan, fake_tensorrt
from .surface import EVERYWHERE, VERSIONS, members, partial, surface

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("exporter/engine", "runtime/backends/tensorrt") for path in (ROOT / folder).rglob("*.py")
)
ENGINES = [version for version in VERSIONS if version != "rtx"]

GUARDED = {
    "ComputeCapability": "config.py: only with targets, which only TensorRT for RTX takes",
    "EngineStat": "backend.py: after asking the engine for get_engine_stat, which came with it",
    "EXPLICIT_BATCH": "network.py: names that the version has",
    "FP16": "network.py and verb.py: asked by hasattr; config.py: only in networks that are not typed",
    "IProgressMonitor": "monitor.py: asked by hasattr",
    "OBEY_PRECISION_CONSTRAINTS": "config.py: only in networks that are not typed, where it exists",
    "SAME_COMPUTE_CAPABILITY": "config.py: asked by hasattr",
    "STRONGLY_TYPED": "network.py: names that the version has",
    "TOTAL_WEIGHTS_SIZE": "backend.py: with EngineStat",
    "device_memory_size": "backend.py: asked by hasattr",
    "device_memory_size_v2": "backend.py: asked by hasattr",
    "get_engine_stat": "backend.py: asked by hasattr",
    "max_num_tactics": "config.py: asked by hasattr",
    "num_compute_capabilities": "config.py: only with targets",
    "progress_monitor": "monitor.py: asked by hasattr",
    "set_compute_capability": "config.py: only with targets",
}
NOT_THEIRS = {
    "INT64": "slots.py: the name of a type that an engine has itself told",
    "build_engine": "our own verb",
    "int64": "NumPy's",
    "tensorrt": "the module, and our own backend",
    "tensorrt_rtx": "the module",
}
"""Words that some class of TensorRT has too."""


def words_of(path: Path) -> set[str]:
    """Every attribute and every string in a file: what it may touch by name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def test_every_member_that_some_version_lacks_is_known_to_be_guarded() -> None:
    assert len(SOURCES) > 10
    touched = {word for path in SOURCES for word in words_of(path)} & set(partial())
    assert touched - set(NOT_THEIRS) == set(GUARDED)


def test_the_reading_finds_a_member_that_is_not_guarded(tmp_path: Path) -> None:
    source = tmp_path / "planted.py"
    source.write_text("def run(context):\n    context.execute_async_v2([], 0)\n    context.execute_async_v3(0)\n")
    assert words_of(source) & set(partial()) == {"execute_async_v2"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_stand_in_has_what_its_version_has(version: str) -> None:
    """Else the tests below would prove nothing."""
    trt = fake_tensorrt(version)
    config = trt.Builder(None).create_builder_config()
    assert hasattr(config, "max_num_tactics") == ("max_num_tactics" in members("IBuilderConfig", version))
    assert hasattr(trt.BuilderFlag, "FP16") == (version in surface()["BuilderFlag"]["FP16"])
    assert hasattr(trt, "IProgressMonitor") == (version != "86")
    with pytest.raises(AttributeError, match="has no max_workspace_size" if version != "86" else "no TensorRT's"):
        config.max_workspace_size = 1 if version != "86" else setattr(config, "anything", 1)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("version", ENGINES)
def test_from_bundle_to_frames(
    version: str, precision: str, tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    plan = Plan(dla_cores=2)
    use_tensorrt(version, plan)
    options = BuildOptions(precision=precision, workspace_bytes=2**20, max_tactics=5, level=4, version_compatible=True)
    built = build_on_orin(tiny, options)
    record = built.stored.record
    assert record.golden is not None and record.golden.cases >= 1 and record.spec.version == NUMBERS[version]

    typed = version != "86"
    flags = plan.built[0]["flags"]
    assert "TF32" not in flags and "VERSION_COMPATIBLE" in flags
    assert ("FP16" in flags) == (precision == "fp16" and not typed)
    assert plan.built[0]["pinned"] == (["island"] if precision == "fp16" and not typed else [])
    known = surface()["NetworkDefinitionCreationFlag"]
    assert (plan.creation_flags[0] != 0) == (version in known["EXPLICIT_BATCH"] | known["STRONGLY_TYPED"])
    limited = version in surface()["IBuilderConfig"]["max_num_tactics"]
    assert any("cannot limit the number of tactics" in note for note in record.notes) != limited

    with TensorRTBackend(built.stored.read(), memory=FakeMemory()) as backend:
        use = backend.memory_use()
        assert use.activation_bytes == 1000
        assert use.weight_bytes == (500 if version in surface()["ICudaEngine"]["get_engine_stat"] else None)
        frame = np.zeros((1, 16, 24, 3), np.uint8)
        assert backend.run({"frame": frame})[0].shape == (1, 2, 16, 24)


@pytest.mark.parametrize("version", ENGINES)
def test_a_dla_gets_flags_where_there_are_any(
    version: str, tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    plan = Plan(dla_cores=1, not_on_dla=frozenset({"conv", "island"}), told_of_dla=frozenset({"conv_1", "island"}))
    use_tensorrt(version, plan)
    from edgeslim.runtime import FrameRange

    one = FrameRange(minimum=(1, 16, 24), optimum=(1, 16, 24), maximum=(1, 16, 24))
    record = build_on_orin(tiny, BuildOptions(precision="fp16", dla_core=0, frames=one)).stored.record
    assert plan.built[0]["dla"] == 0 and "GPU_FALLBACK" in record.spec.flags
    assert ("FP16" in record.spec.flags) == (version in surface()["BuilderFlag"]["FP16"])
    said = "Validation failed for DLA layer: island. Switching to GPU fallback."
    assert dict(record.on_gpu) == {"conv": "the DLA does not support it", "island": said}


def test_the_parts_that_load_bundles_touch_nothing_of_tensorrt(tiny: Path) -> None:
    """`load` on a machine without TensorRT runs on the CPU and says why."""
    with load(tiny) as session:
        assert session.choice is not None and session.choice.backend == "onnxruntime"
        assert "no engine has been built" in session.choice.passed_over["tensorrt"]
    assert frozenset(VERSIONS) == EVERYWHERE
