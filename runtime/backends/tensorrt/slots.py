"""The inputs and outputs of an engine, and the memory they live in.

Buffers are made once, for the largest sizes of the engine's profile: nothing is allocated while frames run. On a GPU
with memory of its own every tensor has a page-locked buffer on the CPU's side and one on the GPU's; where both share
one memory the GPU works in the page-locked buffer itself, and nothing is copied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from edgeslim.errors import EngineError

from ...manifest import TensorSpec
from ..protocol import Array
from .log import TrtObject
from .memory import DeviceMemory, HostBuffer

Shape = tuple[int, ...]

_DTYPES = {
    "BOOL": "bool", "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64",
    "UINT8": "uint8",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One tensor of an engine and its buffers. least, most: the shapes of the profile."""

    spec: TensorSpec
    least: Shape
    most: Shape
    host: HostBuffer
    device: int
    """The address that TensorRT is given."""
    copied: bool
    """Whether `device` is another memory than `host`."""

    def view(self, shape: Shape) -> Array:
        """The host's bytes as an array of `shape`."""
        dtype = np.dtype(self.spec.dtype)
        return self.host.array[: dtype.itemsize * math.prod(shape)].view(dtype).reshape(shape)

    def nbytes(self, shape: Shape) -> int:
        """Bytes of a tensor of that shape."""
        return np.dtype(self.spec.dtype).itemsize * math.prod(shape)


def make_slots(
    trt: ModuleType, engine: TrtObject, context: TrtObject, memory: DeviceMemory
) -> tuple[tuple[Slot, ...], tuple[Slot, ...]]:
    """Buffers for all inputs and outputs, and their addresses told to the context. Raises EngineError."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    ranges = {name: tuple(map(tuple, engine.get_tensor_profile_shape(name, 0))) for name in inputs}
    shapes: dict[str, tuple[Shape, Shape, Shape]] = {}
    for which in (0, 1, 2):
        for name in inputs:
            _set_shape(context, name, ranges[name][which])
        for name in names:
            shape = tuple(context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                raise EngineError(
                    f"{name} has a size that is known only after a run", "end the net before it: see `edgeslim inspect`"
                )
            shapes[name] = (*shapes.get(name, ()), shape)
    slots = [_slot(trt, engine, context, memory, name, shapes[name]) for name in names]
    chosen = {slot.spec.name: slot for slot in slots}
    return tuple(chosen[n] for n in inputs), tuple(chosen[n] for n in names if n not in inputs)


def set_shapes(context: TrtObject, inputs: tuple[Slot, ...], shapes: dict[str, Shape]) -> None:
    """Tell the context the inputs' shapes. Raises EngineError for a shape outside the engine's profile."""
    for slot in inputs:
        shape = shapes[slot.spec.name]
        fits = len(shape) == len(slot.most) and all(a <= n <= b for a, n, b in zip(slot.least, shape, slot.most))
        if not fits:
            allowed = str(list(slot.most)) if slot.least == slot.most else f"{list(slot.least)} to {list(slot.most)}"
            raise EngineError(
                f"{slot.spec.name} of shape {list(shape)} was given, the engine was built for {allowed}",
                "give frames of that size, or build an engine for these: `edgeslim build BUNDLE --frames ...`",
            )
        _set_shape(context, slot.spec.name, shape)


def _set_shape(context: TrtObject, name: str, shape: Shape) -> None:
    if not context.set_input_shape(name, shape):
        raise EngineError(f"TensorRT refuses {name} of shape {list(shape)}", "build an engine for this size")


def _slot(
    trt: ModuleType,
    engine: TrtObject,
    context: TrtObject,
    memory: DeviceMemory,
    name: str,
    shapes: tuple[Shape, Shape, Shape],
) -> Slot:
    kind = engine.get_tensor_dtype(name).name
    if kind not in _DTYPES:
        raise EngineError(
            f"{name} has the type {kind}, which NumPy has no arrays for", "export it as float16 or float32"
        )
    dtype = np.dtype(_DTYPES[kind])
    size = max(1, dtype.itemsize * max(math.prod(shape) for shape in shapes))
    host = memory.allocate_host(size)
    device = host.device_address if host.device_address is not None else memory.allocate(size)
    if not context.set_tensor_address(name, device):
        raise EngineError(f"TensorRT refuses the memory of {name}", "please report the engine and `edgeslim doctor`")
    stated = tuple(int(n) if n >= 0 else f"{name}/axis{axis}" for axis, n in enumerate(engine.get_tensor_shape(name)))
    return Slot(
        spec=TensorSpec(name=name, dtype=dtype.name, shape=stated),
        least=shapes[0],
        most=shapes[2],
        host=host,
        device=device,
        copied=host.device_address is None,
    )
