"""Progress for a reproduction: a line a stage, for logs that are read afterwards."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Log:
    """Writes stages and notes to standard error, with the seconds since the case began."""

    name: str
    started: float = field(default_factory=time.perf_counter)

    def stage(self, name: str, total: int | None = None) -> None:
        """A line."""
        self._say(name if total is None else f"{name}, {total} steps")

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Nothing: stages are short."""

    def note(self, text: str) -> None:
        """A line."""
        self._say(text)

    def _say(self, text: str) -> None:
        print(f"{self.name} {time.perf_counter() - self.started:7.1f} s  {text}", file=sys.stderr, flush=True)
