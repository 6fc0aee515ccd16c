"""What a long run tells while it runs. The library reports; who listens decides how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


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
