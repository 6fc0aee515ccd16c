"""A stand-in for a GPU's memory and stream, for tests alone: ordinary arrays, apart from the host's."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeslim.errors import EngineError
from edgeslim.runtime.backends.tensorrt.memory import HostBuffer


class FakeMemory:
    """ "GPU" memory in ordinary arrays; graphs are the work they hold, done when launched.

    calls: what was asked for, in order.  total: bytes beyond which nothing more can be had.
    """

    name = "fake"
    stream = 7

    def __init__(self, *, unified: bool = False, graphs: bool = True, total: int = 2**62) -> None:
        self.unified, self._can_capture, self._left = unified, graphs, total
        self.calls: list[str] = []
        self.closed = 0
        self._device: dict[int, np.ndarray[Any, Any]] = {}
        self._graphs: dict[int, Callable[[], None]] = {}
        self._events: dict[int, float] = {}
        self._numbers = itertools.count(1)

    def _make(self, size: int) -> np.ndarray[Any, Any]:
        if size > self._left:
            raise EngineError(f"{size} bytes cannot be had: out of memory", "a stand-in's own limit")
        self._left -= size
        return np.full(size, 0xAB, np.uint8)

    def allocate(self, size: int) -> int:
        array = self._make(size)
        self._device[array.ctypes.data] = array
        return int(array.ctypes.data)

    def allocate_host(self, size: int) -> HostBuffer:
        array = self._make(size)
        mapped = int(array.ctypes.data) if self.unified else None
        return HostBuffer(array=array, address=int(array.ctypes.data), device_address=mapped)

    def copy_in(self, device: int, host: HostBuffer, size: int) -> None:
        self.calls.append("in")
        self._device[device][:size] = host.array[:size]

    def copy_out(self, host: HostBuffer, device: int, size: int) -> None:
        self.calls.append("out")
        host.array[:size] = self._device[device][:size]

    def synchronize(self) -> None:
        self.calls.append("synchronize")

    def make_event(self) -> int:
        return next(self._numbers)

    def record(self, event: int) -> None:
        self._events[event] = time.perf_counter()

    def elapsed_ms(self, start: int, end: int) -> float:
        return (self._events[end] - self._events[start]) * 1e3

    def capture(self, work: Callable[[], None]) -> int | None:
        if not self._can_capture:
            return None
        self.calls.append("capture")
        graph = next(self._numbers)
        self._graphs[graph] = work
        return graph

    def launch(self, graph: int) -> None:
        self.calls.append("launch")
        self._graphs[graph]()

    def free_graph(self, graph: int) -> None:
        self.calls.append("free")
        del self._graphs[graph]

    def close(self) -> None:
        self.closed += 1
