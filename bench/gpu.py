"""Where the time of an engine goes: copies, compute, enqueue, by CUDA events, in runs of their own.

What is compared and what the camera pays is measured by `compare` without any event; these runs only explain it.
Definitions and warnings are trtexec's, so that figures can be laid beside its own, as long as its flags are the same:
CUDA graphs on, one stream, no spin wait, transfers on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from edgeslim.runtime import Session
from edgeslim.runtime.backends import Array
from edgeslim.runtime.backends.tensorrt.backend import EngineMemory, RunTimes

from .clock import NS_PER_MS, NS_PER_S, now_ns, undisturbed
from .result import GpuTimes, Latency, latency_from_samples

UNSTEADY_COMPUTE = 0.025
"""Coefficient of variation of the compute time from which trtexec warns."""
BUSY_ENQUEUE = 0.8
"""Share of the compute time that the enqueue may take before the CPU is what is measured."""


@runtime_checkable
class TimedBackend(Protocol):
    """A backend on a GPU that can tell the parts of a run."""

    @property
    def graphs(self) -> str:
        """What became of CUDA graphs."""

    @property
    def unified(self) -> bool:
        """Whether nothing is copied, for CPU and GPU share one memory."""

    def run_timed(self, feeds: dict[str, Array]) -> tuple[list[Array], RunTimes]:
        """Run once and tell the times."""

    def memory_use(self) -> EngineMemory:
        """What the engine occupies."""


def measure_gpu(session: Session, frames: Array, *, samples: int, seconds: float) -> GpuTimes | None:
    """Time the parts of `samples` runs, fewer when `seconds` are over; None where the backend cannot tell them.

    frames: a batch (N, H, W, C) uint8. The session is warm.
    """
    backend = session.backend
    if not isinstance(backend, TimedBackend):
        return None
    feeds = {session.manifest.inputs[0].name: frames}
    taken: list[RunTimes] = []
    with undisturbed():
        start = now_ns()
        while len(taken) < samples and (len(taken) < 10 or now_ns() - start < seconds * NS_PER_S):
            taken.append(backend.run_timed(feeds)[1])
        elapsed = now_ns() - start
    compute = _latency([t.compute_ms for t in taken])
    copies = [_optional([t.copy_in_ms for t in taken]), _optional([t.copy_out_ms for t in taken])]
    return GpuTimes(
        compute=compute,
        enqueue=_latency([t.enqueue_ms for t in taken]),
        copy_in=copies[0],
        copy_out=copies[1],
        sum_ms=compute.p50_ms + sum(copy.p50_ms for copy in copies if copy is not None),
        throughput_hz=len(frames) * len(taken) * NS_PER_S / elapsed,
        cuda_graphs=backend.graphs,
    )


def gpu_warnings(name: str, times: GpuTimes | None) -> Iterator[str]:
    """What trtexec would warn of."""
    if times is None:
        return
    samples = times.compute.samples_ns
    mean = sum(samples) / len(samples)
    deviation = (sum((s - mean) ** 2 for s in samples) / len(samples)) ** 0.5
    if deviation > UNSTEADY_COMPUTE * mean:
        share = deviation / mean
        yield f"{name}: GPU compute varies by {share:.1%}: lock the clocks (nvpmodel, jetson_clocks) to compare"
    if times.enqueue.p50_ms > BUSY_ENQUEUE * times.compute.p50_ms:
        queueing, computing = times.enqueue.p50_ms, times.compute.p50_ms
        yield f"{name}: queueing takes {queueing:.3f} ms, computing {computing:.3f} ms: it is the CPU that is measured"
    for what, copy in (("to", times.copy_in), ("from", times.copy_out)):
        if copy is not None and copy.p50_ms >= times.compute.p50_ms:
            yield f"{name}: the copy {what} the GPU takes {copy.p50_ms:.3f} ms, as long as the net itself"
    if times.cuda_graphs not in ("used", "off"):
        yield f"{name}: no CUDA graph: {times.cuda_graphs}"


def _latency(milliseconds: list[float]) -> Latency:
    return latency_from_samples([max(1, round(value * NS_PER_MS)) for value in milliseconds])


def _optional(milliseconds: list[float | None]) -> Latency | None:
    known = [value for value in milliseconds if value is not None]
    return _latency(known) if known else None
