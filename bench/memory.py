"""Memory of a bundle at work, measured where nothing else has run: in a fresh process.

The child imports everything first, notes its resident set, lets the kernel forget the peak so far
(`/proc/self/clear_refs`), then loads the bundle and runs frames; the growth from the noted value to the
peak is what a camera program pays. A second session in that child records ONNX Runtime's profile, whose
events carry the statistics of the session's arena in recent versions (1.31 has them).
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeslim.runtime import Bundle
from edgeslim.schema import SchemaError, loads

from .result import ArenaUse, MemoryUse

_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What the child prints, as JSON."""

    peak_rss_bytes: int | None
    arena: ArenaUse | None
    problem: str | None


def measure_memory(bundle: Bundle, frame_size: tuple[int, int], *, threads: int, spin: bool) -> MemoryUse:
    """Run frames of (height, width) pixels in a fresh process. What cannot be measured is None, with the reason."""
    shape = (*frame_size, bundle.manifest.image.channels)
    probe = _probe(bundle.path, shape, threads=threads, spin=spin)
    return MemoryUse(
        file_bytes=bundle.manifest.files[bundle.manifest.stored_model].bytes,
        weight_bytes=bundle.manifest.sizes.weight_bytes,
        arena=probe.arena,
        peak_rss_bytes=probe.peak_rss_bytes,
        problem=probe.problem,
    )


def _probe(path: Path, shape: tuple[int, int, int], *, threads: int, spin: bool) -> ProbeReport:
    numbers = [*shape, threads, int(spin)]
    command = [sys.executable, "-m", "edgeslim.bench.memory_probe", os.fspath(path), *map(str, numbers)]
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
    return ProbeReport(peak_rss_bytes=None, arena=None, problem=problem)
