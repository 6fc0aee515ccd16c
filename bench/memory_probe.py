"""The process in which memory is measured: `python -m edgeslim.bench.memory_probe BUNDLE H W THREADS SPIN`."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

from edgeslim.runtime import load, read_bundle
from edgeslim.runtime.backends.onnxruntime import OnnxRuntimeBackend
from edgeslim.runtime.backends.protocol import Array
from edgeslim.schema import dumps

from .arena import arena_from_profile
from .memory import ProbeReport
from .result import ArenaUse

RUNS = 5


def main(arguments: list[str]) -> None:
    """Measure, and print a ProbeReport as JSON on stdout."""
    path = Path(arguments[0])
    height, width, channels, threads, spin = map(int, arguments[1:])
    frame = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    peak = _peak_growth(path, frame, threads=threads, spin=bool(spin))
    arena = _arena(path, frame, threads=threads, spin=bool(spin))
    problems = []
    if peak is None:
        problems.append("the kernel does not tell the peak of the resident set")
    if arena is None:
        problems.append("this ONNX Runtime's profile has no memory statistics")
    report = ProbeReport(peak_rss_bytes=peak, arena=arena, problem="; ".join(problems) or None)
    sys.stdout.write(dumps(report))


def _peak_growth(path: Path, frame: Array, *, threads: int, spin: bool) -> int | None:
    """Bytes from the resident set now to its peak over load and runs."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    resident, peak_before = _status("VmRSS"), _status("VmHWM")
    with load(path, threads=threads, spin=spin) as session:
        for _ in range(RUNS):
            session.run(frame)
    peak = _status("VmHWM")
    if resident is None or peak_before is None or peak is None or peak <= peak_before:
        return None
    return peak - resident


def _status(key: str) -> int | None:
    """A size from /proc/self/status, in bytes."""
    try:
        found = re.search(rf"^{key}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def _arena(path: Path, frame: Array, *, threads: int, spin: bool) -> ArenaUse | None:
    """The arena's statistics from a profiled session of its own."""
    bundle = read_bundle(path)
    feeds = {bundle.manifest.inputs[0].name: frame[np.newaxis]}
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "profile"
        with OnnxRuntimeBackend(bundle.model, threads=threads, spin=spin, profile=prefix) as backend:
            for _ in range(RUNS):
                backend.run(feeds)
            return arena_from_profile(json.loads(backend.end_profile().read_bytes()))


if __name__ == "__main__":
    main(sys.argv[1:])
