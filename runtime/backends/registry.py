"""The one list of engines, by name."""

from __future__ import annotations

import functools

from edgeslim.errors import ConfigError

from ..engines.record import EngineBackend
from .protocol import Backend, BackendFactory


def _onnxruntime() -> BackendFactory:
    from .onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend


def _onnxruntime_cuda() -> BackendFactory:
    from .onnxruntime import OnnxRuntimeCudaBackend

    return OnnxRuntimeCudaBackend


def _onnxruntime_tensorrt() -> BackendFactory:
    from .onnxruntime import OnnxRuntimeTensorrtBackend

    return OnnxRuntimeTensorrtBackend


def _tensorrt() -> BackendFactory:
    from .tensorrt.backend import TensorRTBackend

    return TensorRTBackend


def _tensorrt_rtx() -> BackendFactory:
    from .tensorrt.backend import TensorRTBackend

    return functools.partial(TensorRTBackend, backend="tensorrt-rtx")


BACKENDS = {
    "onnxruntime": _onnxruntime,
    "onnxruntime-cuda": _onnxruntime_cuda,
    "onnxruntime-tensorrt": _onnxruntime_tensorrt,
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
}
"""Name -> function that imports the adapter (and only then the engine)."""
ENGINE_BACKENDS: tuple[EngineBackend, ...] = ("tensorrt", "tensorrt-rtx")
"""Those that load engines built beforehand; the others load ONNX."""


def open_backend(backend: str | BackendFactory, model: bytes, *, threads: int = 1, spin: bool = False) -> Backend:
    """Load `model` (ONNX bytes, of TensorRT a serialised engine) into an engine.

    threads: threads within one operator.  spin: waiting threads poll instead of sleeping, which is faster
    alone and ruinous beside another busy process.
    Raises ConfigError for an unknown name or thread count, DeviceError where the engine is not installed,
    EngineError where it refuses the model.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ConfigError(f"threads is {threads!r}; it must be a whole number from 1", "for example threads=1")
    if isinstance(backend, str):
        if backend not in BACKENDS:
            raise ConfigError(f"there is no backend {backend!r}", f"choose one of: {', '.join(BACKENDS)}")
        backend = BACKENDS[backend]()
    return backend(model, threads=threads, spin=spin)
