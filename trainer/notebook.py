"""What a run says while it runs, kept for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeslim.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Notebook:
    """Passes everything on to `progress` and keeps the notes for the report."""

    progress: Progress
    notes: list[str] = field(default_factory=list)

    def stage(self, name: str, total: int | None = None) -> None:
        """Pass on."""
        self.progress.stage(name, total)

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Pass on."""
        self.progress.step(done, values)

    def note(self, text: str) -> None:
        """Pass on and keep."""
        self.progress.note(text)
        self.notes.append(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Passes everything on to `progress`, with `name` before it: whose stage that is."""

    progress: Progress
    name: str

    def stage(self, name: str, total: int | None = None) -> None:
        """Pass on, named."""
        self.progress.stage(f"{self.name}: {name}", total)

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Pass on."""
        self.progress.step(done, values)

    def note(self, text: str) -> None:
        """Pass on, named."""
        self.progress.note(f"{self.name}: {text}")
