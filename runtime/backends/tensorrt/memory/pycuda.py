"""CUDA by PyCUDA, which many JetPack users have. It has no capture of streams in all versions: no CUDA graphs here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

from edgeslim.errors import DeviceError, EngineError

from .protocol import HostBuffer

try:
    import pycuda.driver as cuda
except ImportError as error:
    raise DeviceError(f"PyCUDA cannot be imported: {error}", 'use memory="cuda-bindings", the default') from error


@contextmanager
def _told(what: str) -> Iterator[None]:
    """CUDA's refusals as ours."""
    try:
        yield
    except cuda.Error as error:
        raise EngineError(f"{what}: {error}", "end other programs; `edgeslim doctor` tells more") from error


class PycudaMemory:
    """See DeviceMemory. device: the GPU's number."""

    name = "pycuda"

    def __init__(self, device: int = 0) -> None:
        try:
            cuda.init()
            gpu = cuda.Device(device)
            # The primary context is the one that TensorRT and every other user of the runtime API share.
            self._context = gpu.retain_primary_context()
            self._context.push()
        except cuda.Error as error:
            raise DeviceError(f"there is no usable GPU: {error}", "`edgeslim doctor` tells more") from error
        self.unified = bool(gpu.get_attribute(cuda.device_attribute.INTEGRATED))
        self._stream = cuda.Stream()
        self.stream = int(self._stream.handle)
        self._kept: list[object] = []
        self._events: dict[int, object] = {}
        self._closed = False

    def allocate(self, size: int) -> int:
        """See DeviceMemory."""
        with _told(f"{size} bytes of GPU memory cannot be had"):
            memory = cuda.mem_alloc(size)
        self._kept.append(memory)
        return int(memory)

    def allocate_host(self, size: int) -> HostBuffer:
        """See DeviceMemory."""
        flags = cuda.host_alloc_flags.DEVICEMAP if self.unified else 0
        with _told(f"{size} bytes of page-locked memory cannot be had"):
            array = cuda.pagelocked_empty(size, np.uint8, mem_flags=flags)
        self._kept.append(array)
        mapped = int(array.base.get_device_pointer()) if self.unified else None
        return HostBuffer(array=array, address=array.ctypes.data, device_address=mapped)

    def copy_in(self, device: int, host: HostBuffer, size: int) -> None:
        """See DeviceMemory."""
        with _told("the copy to the GPU failed"):
            cuda.memcpy_htod_async(device, host.array[:size], self._stream)

    def copy_out(self, host: HostBuffer, device: int, size: int) -> None:
        """See DeviceMemory."""
        with _told("the copy from the GPU failed"):
            cuda.memcpy_dtoh_async(host.array[:size], device, self._stream)

    def synchronize(self) -> None:
        """See DeviceMemory."""
        with _told("the GPU failed"):
            self._stream.synchronize()

    def make_event(self) -> int:
        """See DeviceMemory."""
        with _told("no event can be made"):
            event = cuda.Event()
        self._events[id(event)] = event
        return id(event)

    def record(self, event: int) -> None:
        """See DeviceMemory."""
        with _told("the event cannot be queued"):
            self._events[event].record(self._stream)  # type: ignore[attr-defined]

    def elapsed_ms(self, start: int, end: int) -> float:
        """See DeviceMemory."""
        with _told("the events tell no time"):
            return float(self._events[start].time_till(self._events[end]))  # type: ignore[attr-defined]

    def capture(self, work: Callable[[], None]) -> int | None:
        """See DeviceMemory."""
        return None

    def launch(self, graph: int) -> None:
        """There is none, see `capture`."""
        raise EngineError("PyCUDA captures no graphs", 'use memory="cuda-bindings"')

    def free_graph(self, graph: int) -> None:
        """There is none, see `capture`."""

    def close(self) -> None:
        """See DeviceMemory."""
        if self._closed:
            return
        self._closed = True
        self._events.clear()
        self._kept.clear()
        with suppress(cuda.Error):
            self._context.pop()
