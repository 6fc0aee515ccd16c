"""Arrays that are on the GPU already, and stay there: a decoder's frames in, another program's tensors out.

Whatever has `__cuda_array_interface__` can be read in place: arrays of torch, CuPy, Numba, PyCUDA. Nothing here imports
any of them. Source of the interface: Numba's documentation of version 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgeslim.errors import EngineError

Shape = tuple[int, ...]


class CudaArray(Protocol):
    """Anything on a GPU that tells its address, shape and type."""

    @property
    def __cuda_array_interface__(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidentArray:
    """An output on the GPU; `torch.as_tensor` and `cupy.asarray` take it as it is.

    It is the engine's own buffer, which the next run overwrites: copy what has to last.
    """

    address: int
    shape: Shape
    dtype: str
    stream: int

    @property
    def __cuda_array_interface__(self) -> Mapping[str, Any]:
        return {
            "version": 3,
            "data": (self.address, False),
            "shape": self.shape,
            "typestr": np.dtype(self.dtype).str,
            "strides": None,
            "stream": self.stream,
        }


def locate(array: CudaArray, name: str, dtype: str) -> tuple[int, Shape]:
    """Address and shape of an input on the GPU.

    Raises EngineError for another type, for gaps between the elements, or for no such array.
    """
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        raise EngineError(
            f"{name} is a {type(array).__name__}, which does not tell where on the GPU it is",
            "give an array with __cuda_array_interface__ (torch on CUDA, CuPy, Numba), or use run() with NumPy's",
        )
    kind, shape = np.dtype(str(interface["typestr"])), tuple(int(n) for n in interface["shape"])
    if kind != np.dtype(dtype):
        raise EngineError(f"{name} is {kind}, the engine takes {dtype}", "convert it on the GPU first")
    strides = interface.get("strides")
    if strides is not None and tuple(strides) != _contiguous(shape, kind.itemsize):
        raise EngineError(f"{name} has gaps between its elements (strides {tuple(strides)})", "call contiguous() on it")
    return int(interface["data"][0]), shape


def _contiguous(shape: Shape, itemsize: int) -> Shape:
    strides = []
    for size in reversed(shape):
        strides.append(itemsize)
        itemsize *= size
    return tuple(reversed(strides))
