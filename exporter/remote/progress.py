"""What a copy tells while it runs, and sizes for people."""

from __future__ import annotations

import time

from edgeslim.progress import PATIENCE_SECONDS, Progress

_MB = 1_000_000


class Copying:
    """Tells of a copy in megabytes, with its rate and the seconds left, once it takes long."""

    def __init__(self, progress: Progress, name: str, total_bytes: int) -> None:
        self._progress, self._name, self._total = progress, name, total_bytes
        self._started = time.monotonic()
        self._done = 0
        self._told = False

    def add(self, count: int) -> None:
        """`count` more bytes have arrived."""
        self._done += count
        seconds = time.monotonic() - self._started
        if seconds < PATIENCE_SECONDS:
            return
        if not self._told:
            self._progress.stage(f"{self._name}, MB", -(-self._total // _MB))
            self._told = True
        rate = self._done / seconds
        left = (self._total - self._done) / rate if rate else float("inf")
        self._progress.step(self._done // _MB, {"MB/s": rate / _MB, "seconds left": left})


def shown_bytes(count: int) -> str:
    """A number of bytes for people: "12.3 MB"."""
    return f"{count} bytes" if count < 1000 else f"{count / 1000:.1f} kB" if count < _MB else f"{count / _MB:.1f} MB"
