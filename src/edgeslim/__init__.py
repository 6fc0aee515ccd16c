"""edgeslim takes a CNN from training to a camera: prunes it, proves that nothing changed, measures it on the device.

    pruned = edgeslim.prune(module, example, ratio=0.5)      PrunedModel: module, plan, coverage, compact()
    edgeslim.export(pruned, "out.bundle")                    the certificate is inside; raises CertificateError
    edgeslim.slim_onnx("in.onnx", "out.onnx")                any ONNX file without its dead channels; Coverage
    edgeslim.runtime.load("out.bundle").run(frame)           numpy and one inference engine, never torch
    edgeslim.bench.measure("out.bundle", "dense.bundle")     BenchResult

Importing edgeslim is light: each name loads what it needs on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import bench, exporter, runtime, trainer
    from .exporter import export
    from .trainer.prune import prune
    from .trainer.pruned import PrunedModel, load_compact
    from .trainer.slim import slim_onnx

__all__ = ["PrunedModel", "bench", "export", "exporter", "load_compact", "prune", "runtime", "slim_onnx", "trainer"]

_HOME = {
    "PrunedModel": "trainer.pruned",
    "export": "exporter.export",
    "load_compact": "trainer.pruned",
    "prune": "trainer.prune",
    "slim_onnx": "trainer.slim",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f"edgeslim.{_HOME[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"edgeslim.{name}")
    raise AttributeError(f"module 'edgeslim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
