"""Which engine runs a bundle here, and what happens to one that nobody has run."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from pathlib import Path

import pytest

from edgeslim.errors import (
    CertificateError,
    ConfigError,
    DeviceError,
    EngineError,
)
from edgeslim.exporter.engine import BuildOptions
from edgeslim.runtime import choose, load, read_bundle
from edgeslim.runtime.backends.tensorrt.backend import TensorRTBackend
from edgeslim.runtime.backends.tensorrt.memory import MEMORIES
from edgeslim.runtime.engines.here import Here

from .bundles import float_model, write_tiny
from .conftest import ORIN, BuildOnOrin, UseTensorRT
from .fake_memory import FakeMemory
from .fake_tensorrt import Plan


def test_the_engine_built_here_is_chosen(tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin) -> None:
    use_tensorrt("103")
    build_on_orin(tiny)
    bundle = read_bundle(tiny)
    choice = choose(bundle, here=ORIN)
    assert choice.backend == "tensorrt" and choice.engine is not None
    assert "built for this GPU and was run on the golden vectors" in choice.reason
    for here, reason in (
        (dataclasses.replace(ORIN, compute_capability="8.6"), r"built on compute capability 8\.7, this GPU has 8\.6"),
        (dataclasses.replace(ORIN, gpu="another"), "built on Orin, this GPU is another"),
        (Here(problem="the driver is gone"), "the driver is gone"),
    ):
        passed = choose(bundle, here=here)
        assert passed.backend == "onnxruntime"
        assert re.search(reason, passed.passed_over["tensorrt"])
        with pytest.raises(EngineError, match=reason) as raised:
            choose(bundle, backend="tensorrt", here=here)
        assert f"edgeslim build {tiny}" in raised.value.hint
    use_tensorrt("107")
    assert "built by TensorRT 10.3.0, here is 10.7.0" in choose(bundle, here=ORIN).passed_over["tensorrt"]
    with pytest.raises(EngineError, match="no engine of fp16"):
        choose(bundle, precision="fp16", backend="tensorrt", here=ORIN)
    with pytest.raises(ConfigError, match="there is no backend 'cuda'"):
        choose(bundle, backend="cuda")


def test_of_several_that_fit_the_newest_checked_one_runs(
    tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    def no_gpu(engine: bytes) -> object:
        raise DeviceError("there is no usable GPU", "none")

    use_tensorrt("103")
    built = [build_on_orin(tiny, BuildOptions(level=level)).stored.path for level in (1, 2, 3)]
    unchecked = build_on_orin(tiny, BuildOptions(level=4), open_engine=no_gpu).stored.path
    for age, path in enumerate((built[1], built[2], built[0], unchecked)):
        os.utime(path, ns=(age, age))
    choice = choose(read_bundle(tiny), here=ORIN)
    assert choice.engine is not None and choice.engine.path == built[0]
    assert "was run on the golden vectors; it is the newest such of 4 that fit" in choice.reason


def test_an_engine_of_another_model_is_passed_over(
    tmp_path: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin
) -> None:
    cache = tmp_path / "cache"
    use_tensorrt("103")
    build_on_orin(write_tiny(tmp_path / "a.bundle", model=float_model(seed=1)), cache=cache)
    choice = choose(read_bundle(write_tiny(tmp_path / "b.bundle")), engines=cache, here=ORIN)
    assert "it was built from another model" in choice.passed_over["tensorrt"]


def test_an_engine_that_was_never_run_is_run_before_it_is_used(
    tiny: Path, use_tensorrt: UseTensorRT, build_on_orin: BuildOnOrin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever loads it is the first who can: built here without a way to run it, or for this GPU elsewhere."""

    def no_gpu(engine: bytes) -> TensorRTBackend:
        raise DeviceError("there is no usable GPU", "none")

    plan, memories = Plan(), list[FakeMemory]()

    def fake_memory(device: int) -> FakeMemory:
        memories.append(FakeMemory())
        return memories[-1]

    use_tensorrt("103", plan)
    monkeypatch.setitem(MEMORIES, "cuda-bindings", fake_memory)
    # The package's attribute of that name is the function.
    monkeypatch.setattr(importlib.import_module("edgeslim.runtime.choose"), "look_here", lambda: ORIN)
    assert not build_on_orin(tiny, open_engine=no_gpu).stored.record.checked
    with load(tiny) as session:
        assert session.backend.name == "tensorrt" and memories[-1].calls.count("in") == 1  # the golden vector
    plan.off_by = 0.01
    with pytest.raises(CertificateError, match="golden case 0, output 'logits' differs"):
        load(tiny)
    assert memories[-1].closed >= 1
    plan.off_by = 0.0
    assert build_on_orin(tiny).stored.record.checked
    plan.off_by = 0.01
    with load(tiny):  # it was checked when it was built, and is not run again on every load
        assert memories[-1].calls == []
