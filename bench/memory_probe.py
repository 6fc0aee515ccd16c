"""The process in which memory is measured: `python -m edgeslim.bench.memory_probe REQUEST`, a ProbeRequest as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np

from edgeslim.runtime import Session, load, read_bundle
from edgeslim.runtime.backends.protocol import Array
from edgeslim.runtime.devices.nvml import ask_nvml
from edgeslim.schema import dumps, loads

from .arena import arena_from_profile
from .gpu import TimedBackend
from .memory import EngineUse, ProbeReport, ProbeRequest
from .result import ArenaUse

RUNS = 5
CPU = "onnxruntime"


def main(arguments: list[str]) -> None:
    """Measure, and print a ProbeReport as JSON on stdout."""
    request = loads(ProbeRequest, arguments[0])
    frame = np.random.default_rng(0).integers(0, 256, request.shape, dtype=np.uint8)
    gpu_before, available_before = _gpu_process_bytes(), _available_bytes()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    resident, peak_before = _status("VmRSS"), _status("VmHWM")
    with _open(request) as session:
        for _ in range(RUNS):
            session.run(frame)
        peak, backend = _status("VmHWM"), session.backend.name
        engine = _engine_use(session, gpu_before, available_before)
    grown = None
    if resident is not None and peak_before is not None and peak is not None and peak > peak_before:
        grown = peak - resident
    arena = _arena(request, frame) if backend == CPU else None
    problems = []
    if grown is None:
        problems.append("the kernel does not tell the peak of the resident set")
    if arena is None and backend == CPU:
        problems.append("this ONNX Runtime's profile has no memory statistics")
    report = ProbeReport(peak_rss_bytes=grown, arena=arena, engine=engine, problem="; ".join(problems) or None)
    sys.stdout.write(dumps(report))


def _open(request: ProbeRequest) -> Session:
    return load(
        request.path,
        precision=request.precision,
        threads=request.threads,
        spin=request.spin,
        backend=request.backend,
        engines=request.engines,
    )


def _engine_use(session: Session, gpu_before: int | None, available_before: int | None) -> EngineUse | None:
    """What the engine and the driver say, while the session is open."""
    backend = session.backend
    if not isinstance(backend, TimedBackend):
        return None
    own, gpu_now, available_now = backend.memory_use(), _gpu_process_bytes(), _available_bytes()
    stored = None if session.choice is None else session.choice.engine
    return EngineUse(
        engine_bytes=None if stored is None else stored.record.engine.bytes,
        weight_bytes=own.weight_bytes,
        activation_bytes=own.activation_bytes,
        io_bytes=own.io_bytes,
        gpu_process_bytes=None if gpu_now is None else gpu_now - (gpu_before or 0),
        system_bytes=available_before - available_now
        if backend.unified and available_before and available_now
        else None,
    )


def _gpu_process_bytes() -> int | None:
    """What this process holds on the GPUs, by NVML; None where NVML does not tell (Jetson, containers)."""
    return ask_nvml(gpu_process_bytes)


def gpu_process_bytes(nvml: ModuleType) -> int | None:
    """The same of an open NVML. All GPUs are asked: NVML's first need not be CUDA's."""
    handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
    running = [process for handle in handles for process in nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)]
    own = [process.usedGpuMemory for process in running if process.pid == os.getpid()]
    return sum(own) if own and None not in own else None  # in a container NVML knows us by another number


def _available_bytes() -> int | None:
    return _kilobytes("/proc/meminfo", "MemAvailable")


def _status(key: str) -> int | None:
    """A size from /proc/self/status, in bytes."""
    return _kilobytes("/proc/self/status", key)


def _kilobytes(file: str, key: str) -> int | None:
    try:
        found = re.search(rf"^{key}:\s*(\d+) kB$", Path(file).read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def _arena(request: ProbeRequest, frame: Array) -> ArenaUse | None:
    """The arena's statistics from a profiled session of its own."""
    from edgeslim.runtime.backends.onnxruntime import OnnxRuntimeBackend

    bundle = read_bundle(request.path)
    feeds = {bundle.manifest.inputs[0].name: frame[np.newaxis]}
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "profile"
        graph = bundle.graph(request.precision)
        with OnnxRuntimeBackend(graph, threads=request.threads, spin=request.spin, profile=prefix) as backend:
            for _ in range(RUNS):
                backend.run(feeds)
            return arena_from_profile(json.loads(backend.end_profile().read_bytes()))


if __name__ == "__main__":
    main(sys.argv[1:])
