"""A small net's bundle, and a TensorRT of any version that is a stand-in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Protocol

import pytest

from edgeslim.exporter.engine import BuildOptions, Built, build_engine
from edgeslim.progress import Silent
from edgeslim.runtime.backends.tensorrt.backend import TensorRTBackend
from edgeslim.runtime.engines.here import Here

from .bundles import write_tiny
from .fake_memory import FakeMemory
from .fake_tensorrt import Plan, fake_tensorrt

ORIN = Here(compute_capability="8.7", gpu="Orin", board="NVIDIA Jetson AGX Orin", driver="540.4.0")


class UseTensorRT(Protocol):
    """Makes `import tensorrt` find the stand-in of a version."""

    def __call__(self, version: str, plan: Plan | None = None, capability: str = "8.7") -> ModuleType: ...


class BuildOnOrin(Protocol):
    """Builds on a stand-in for an Orin."""

    def __call__(self, bundle: Path, options: BuildOptions | None = None, **more: object) -> Built: ...


@pytest.fixture
def use_tensorrt(monkeypatch: pytest.MonkeyPatch) -> UseTensorRT:
    def use(version: str, plan: Plan | None = None, capability: str = "8.7") -> ModuleType:
        module = fake_tensorrt(version, plan, capability)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        return module

    return use


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.bundle")


@pytest.fixture
def progress() -> Silent:
    return Silent()


@pytest.fixture
def build_on_orin(progress: Silent) -> BuildOnOrin:
    def build(bundle: Path, options: BuildOptions | None = None, **more: object) -> Built:
        arguments: dict[str, object] = {"progress": progress, "open_engine": open_fake, "here": ORIN, **more}
        return build_engine(bundle, options or BuildOptions(), **arguments)  # type: ignore[arg-type]

    return build


def open_fake(engine: bytes) -> TensorRTBackend:
    """The engine on a stand-in for a GPU's memory."""
    return TensorRTBackend(engine, memory=FakeMemory())


Opener = Callable[[bytes], TensorRTBackend]
