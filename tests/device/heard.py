"""A progress that keeps all it hears."""

from __future__ import annotations

from collections.abc import Callable, Mapping


class Heard:
    """Keeps stages, steps and notes; `on_note` is called with every note."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.notes: list[str] = []
        self.on_note: Callable[[str], None] = lambda text: None

    def stage(self, name: str, total: int | None = None) -> None:
        """Keep it."""
        self.stages.append((name, total))

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Keep it."""
        self.steps.append((done, dict(values)))

    def note(self, text: str) -> None:
        """Keep it, and tell whoever waits for it."""
        self.notes.append(text)
        self.on_note(text)
