"""What an engine needs of CUDA, and no more: memory on both sides, a stream, copies, events, graphs.

Handles and addresses are plain integers, sizes are bytes, so that an adapter is a page and a test can stand for a GPU
with ordinary memory. One object serves one session; `close` frees all it has handed out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBuffer:
    """Page-locked memory of the CPU, which the GPU reads without a copy of its own.

    device_address: where the GPU sees the same bytes, None where it cannot.
    """

    array: NDArray[np.uint8]
    address: int
    device_address: int | None


class DeviceMemory(Protocol):
    """One GPU's memory and queue. Every method raises EngineError with CUDA's reason where CUDA refuses."""

    @property
    def name(self) -> str:
        """The adapter's name in the registry."""

    @property
    def unified(self) -> bool:
        """CPU and GPU share one memory, as on a Jetson: mapped host memory then needs no copies."""

    @property
    def stream(self) -> int:
        """The handle of the one stream that everything here is queued on."""

    def allocate(self, size: int) -> int:
        """The address of new device memory."""

    def allocate_host(self, size: int) -> HostBuffer:
        """New page-locked host memory, mapped for the GPU where `unified`."""

    def copy_in(self, device: int, host: HostBuffer, size: int) -> None:
        """Queue a copy to the device."""

    def copy_out(self, host: HostBuffer, device: int, size: int) -> None:
        """Queue a copy from the device."""

    def synchronize(self) -> None:
        """Wait until everything queued is done."""

    def make_event(self) -> int:
        """The handle of a new event that can tell times."""

    def record(self, event: int) -> None:
        """Queue the event."""

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds from one event to the other; both are over."""

    def capture(self, work: Callable[[], None]) -> int | None:
        """Record what `work` queues as a graph, without running it: its handle. None where this adapter cannot."""

    def launch(self, graph: int) -> None:
        """Queue a graph."""

    def free_graph(self, graph: int) -> None:
        """Forget a graph."""

    def close(self) -> None:
        """Free all of it; harmless when repeated."""
