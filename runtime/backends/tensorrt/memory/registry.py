"""The one list of ways to CUDA, by name; each is imported only when it is opened."""

from __future__ import annotations

from edgeslim.errors import ConfigError

from .protocol import DeviceMemory


def _cuda_bindings(device: int) -> DeviceMemory:
    from .cuda_bindings import CudaBindingsMemory

    return CudaBindingsMemory(device)


def _pycuda(device: int) -> DeviceMemory:
    from .pycuda import PycudaMemory

    return PycudaMemory(device)


def _torch(device: int) -> DeviceMemory:
    from .torch import TorchMemory

    return TorchMemory(device)


MEMORIES = {"cuda-bindings": _cuda_bindings, "pycuda": _pycuda, "torch": _torch}
"""Name -> function that imports the adapter (and only then its library)."""


def open_memory(name: str = "cuda-bindings", device: int = 0) -> DeviceMemory:
    """Open the adapter `name` for GPU `device`.

    Raises ConfigError for an unknown name, DeviceError where its library or a GPU is missing.
    """
    if name not in MEMORIES:
        raise ConfigError(f"there is no way to GPU memory named {name!r}", f"choose one of: {', '.join(MEMORIES)}")
    return MEMORIES[name](device)
