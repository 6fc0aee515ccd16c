"""CUDA by torch, for programs that have loaded it anyway: one context, one allocator, one stream order.

The runtime never imports torch of its own accord; this file does when somebody asks for it by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeslim.errors import DeviceError, EngineError

from .protocol import HostBuffer

try:
    torch: Any = importlib.import_module("torch")  # by name: the device side has no dependency on it
except ImportError as error:
    raise DeviceError(f"torch cannot be imported: {error}", 'use memory="cuda-bindings", the default') from error


class TorchMemory:
    """See DeviceMemory. device: the GPU's number."""

    name = "torch"

    def __init__(self, device: int = 0) -> None:
        if not torch.cuda.is_available():
            raise DeviceError("torch sees no GPU", 'install a torch with CUDA, or use memory="cuda-bindings"')
        self._gpu = torch.device("cuda", device)
        # An integrated GPU could read host memory in place, which torch has no words for: it copies.
        self.unified = False
        self._stream = torch.cuda.Stream(self._gpu)
        self.stream = int(self._stream.cuda_stream)
        self._kept: dict[int, Any] = {}
        self._events: dict[int, Any] = {}
        self._graphs: dict[int, Any] = {}

    def allocate(self, size: int) -> int:
        """See DeviceMemory."""
        try:
            tensor = torch.empty(size, dtype=torch.uint8, device=self._gpu)
        except RuntimeError as error:  # torch.cuda.OutOfMemoryError is one
            raise EngineError(f"{size} bytes of GPU memory cannot be had: {error}", "end other programs") from error
        self._kept[tensor.data_ptr()] = tensor
        return int(tensor.data_ptr())

    def allocate_host(self, size: int) -> HostBuffer:
        """See DeviceMemory."""
        try:
            tensor = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            raise EngineError(f"{size} bytes of page-locked memory cannot be had: {error}", "end others") from error
        self._kept[tensor.data_ptr()] = tensor
        array: Any = tensor.numpy()
        return HostBuffer(array=np.asarray(array), address=int(tensor.data_ptr()), device_address=None)

    def copy_in(self, device: int, host: HostBuffer, size: int) -> None:
        """See DeviceMemory."""
        with torch.cuda.stream(self._stream):
            self._kept[device][:size].copy_(self._kept[host.address][:size], non_blocking=True)

    def copy_out(self, host: HostBuffer, device: int, size: int) -> None:
        """See DeviceMemory."""
        with torch.cuda.stream(self._stream):
            self._kept[host.address][:size].copy_(self._kept[device][:size], non_blocking=True)

    def synchronize(self) -> None:
        """See DeviceMemory."""
        try:
            self._stream.synchronize()
        except RuntimeError as error:
            raise EngineError(f"the GPU failed: {error}", "`edgeslim doctor` tells more") from error

    def make_event(self) -> int:
        """See DeviceMemory."""
        event = torch.cuda.Event(enable_timing=True)
        self._events[id(event)] = event
        return id(event)

    def record(self, event: int) -> None:
        """See DeviceMemory."""
        self._events[event].record(self._stream)

    def elapsed_ms(self, start: int, end: int) -> float:
        """See DeviceMemory."""
        return float(self._events[start].elapsed_time(self._events[end]))

    def capture(self, work: Callable[[], None]) -> int | None:
        """See DeviceMemory."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            raise EngineError(f"the work cannot be captured as a CUDA graph: {error}", "run without graphs") from error
        self._graphs[id(graph)] = graph
        return id(graph)

    def launch(self, graph: int) -> None:
        """See DeviceMemory."""
        with torch.cuda.stream(self._stream):
            self._graphs[graph].replay()

    def free_graph(self, graph: int) -> None:
        """See DeviceMemory."""
        self._graphs.pop(graph).reset()

    def close(self) -> None:
        """See DeviceMemory. Memory goes back to torch's own pool."""
        for kept in (self._graphs, self._events, self._kept):
            kept.clear()
