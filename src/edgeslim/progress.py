"""What a long run tells while it runs. The library reports; who listens decides how it looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

PATIENCE_SECONDS = 2.0
"""Work that is done sooner is not worth a stage of its own."""


class Progress(Protocol):
    """Hears of stages, steps and remarks."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins; `total` steps, or an unknown number."""
        ...

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """`done` steps of the stage are done; the newest loss and scores."""
        ...

    def note(self, text: str) -> None:
        """Something a person should know: a fallback, a reuse, a skip."""
        ...


class Silent:
    """Hears everything, shows nothing, keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, name: str, total: int | None = None) -> None:
        """Show nothing."""

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Keep the remark."""
        self.notes.append(text)


def told_late(progress: Progress, name: str) -> Callable[[int, int], None]:
    """A function of (done, total) that tells `progress` of a stage `name`, once that turns out to take long.

    Another total begins the stage anew.
    """
    started, told = time.monotonic(), 0

    def report(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - started < PATIENCE_SECONDS:
            return
        if told != total:
            progress.stage(name, total)
            told = total
        progress.step(done, {})

    return report
