"""Memory of a bundle at work, measured where nothing else has run: in a fresh process.

The child imports everything first, notes its resident set, lets the kernel forget the peak so far
(`/proc/self/clear_refs`), then loads the bundle and runs frames; the growth from the noted value to the
peak is what a camera program pays. On the CPU a second session in that child records ONNX Runtime's profile, whose
events carry the statistics of the session's arena in recent versions (1.31 has them). Of an engine, TensorRT tells what
it occupies, NVML what the process holds on a desktop GPU, and the kernel how much is gone where memory is shared.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from edgeslim.runtime import Bundle
from edgeslim.schema import SchemaError, dumps, loads

from .result import ArenaUse, MemoryUse

_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """What the child shall load. shape: of a frame, (H, W, C)."""

    path: str
    shape: tuple[int, int, int]
    threads: int
    spin: bool
    precision: str
    backend: str
    engines: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUse:
    """What an engine occupies; see MemoryUse."""

    engine_bytes: int | None
    weight_bytes: int | None
    activation_bytes: int | None
    io_bytes: int
    gpu_process_bytes: int | None
    system_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What the child prints, as JSON."""

    peak_rss_bytes: int | None
    arena: ArenaUse | None
    engine: EngineUse | None
    problem: str | None


def measure_memory(
    bundle: Bundle,
    frame_size: tuple[int, int],
    *,
    threads: int,
    spin: bool,
    precision: str = "fp32",
    backend: str = "onnxruntime",
    engines: str | os.PathLike[str] | None = None,
) -> MemoryUse:
    """Run frames of (height, width) pixels in a fresh process. What cannot be measured is None, with the reason."""
    request = ProbeRequest(
        path=os.fspath(bundle.path),
        shape=(*frame_size, bundle.manifest.image.channels),
        threads=threads,
        spin=spin,
        precision=precision,
        backend=backend,
        engines=None if engines is None else os.fspath(engines),
    )
    probe = _probe(request)
    manifest, variant, engine = bundle.manifest, bundle.variant(precision), probe.engine
    file = manifest.stored_model if variant is None else variant.file
    return MemoryUse(
        file_bytes=manifest.files[file].bytes,
        weight_bytes=manifest.sizes.weight_bytes if variant is None else variant.weight_bytes,
        arena=probe.arena,
        peak_rss_bytes=probe.peak_rss_bytes,
        engine_bytes=None if engine is None else engine.engine_bytes,
        engine_weight_bytes=None if engine is None else engine.weight_bytes,
        engine_activation_bytes=None if engine is None else engine.activation_bytes,
        io_bytes=None if engine is None else engine.io_bytes,
        gpu_process_bytes=None if engine is None else engine.gpu_process_bytes,
        system_bytes=None if engine is None else engine.system_bytes,
        problem=probe.problem,
    )


def _probe(request: ProbeRequest) -> ProbeReport:
    command = [sys.executable, "-m", "edgeslim.bench.memory_probe", dumps(request)]
    try:
        child = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return _unmeasured(f"the measuring process failed: {error}")
    if child.returncode != 0:
        last = (child.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        return _unmeasured(f"the measuring process ended with {child.returncode}: {last}")
    try:
        return loads(ProbeReport, child.stdout)
    except SchemaError as error:
        return _unmeasured(f"the measuring process printed something else: {error}")


def _unmeasured(problem: str) -> ProbeReport:
    return ProbeReport(peak_rss_bytes=None, arena=None, engine=None, problem=problem)
