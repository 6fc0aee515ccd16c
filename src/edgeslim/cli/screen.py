"""What a person sees: errors, remarks and live progress on stderr, results on stdout."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from edgeslim.errors import EdgeslimError

out = Console()
err = Console(stderr=True)

_MAIN = ("dice", "accuracy")
"""The score of each kind of task; the scores that come after it are its details."""


def print_error(error: EdgeslimError) -> None:
    """The message and the hint, nothing else."""
    err.print("[bold red]error:[/] ", end="")
    err.print(error.message, markup=False, highlight=False, soft_wrap=True)
    if error.hint:
        err.print("[bold]hint:[/] ", end="")
        err.print(error.hint, markup=False, highlight=False, soft_wrap=True)


def print_json(text: str) -> None:
    """A JSON text, untouched, whatever the terminal is."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def open_progress() -> LiveProgress | LogProgress:
    """Bars on a terminal, lines in a log; use it in a `with` block."""
    return LiveProgress() if err.is_terminal else LogProgress()


class LogProgress:
    """A line when a stage begins and at every tenth of it, for logs that nobody watches live."""

    def __init__(self) -> None:
        self._stage, self._total, self._shown = "", 0, 0

    def __enter__(self) -> LogProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to clean up."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Name the stage."""
        self._stage, self._total, self._shown = name, total or 0, 0
        self._print(f"{name} ..." if total is None else f"{name}: {total} steps")

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Tell how far it is, ten times a stage."""
        tenth = 10 * done // self._total if self._total else 0
        if tenth > self._shown:
            self._shown = tenth
            self._print(f"{self._stage} {done}/{self._total}  {_values(values)}")

    def note(self, text: str) -> None:
        """A remark on a line of its own."""
        self._print("note: " + text)

    def _print(self, text: str) -> None:
        err.print(text.rstrip(), markup=False, highlight=False, soft_wrap=True)


class LiveProgress:
    """A bar for the stage that runs and one for each that is done; use it in a `with` block."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<14}", markup=False),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> LiveProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._close()
        self._bars.stop()

    def stage(self, name: str, total: int | None = None) -> None:
        """A new bar; the one before is complete."""
        self._close()
        self._task = self._bars.add_task(name, total=total, values="")

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Move the bar and show the newest values."""
        if self._task is not None:
            self._bars.update(self._task, completed=done, values=_values(values))

    def note(self, text: str) -> None:
        """A remark above the bars."""
        self._bars.console.print("note: " + text, markup=False, highlight=False, soft_wrap=True)

    def _close(self) -> None:
        if self._task is None:
            return
        task = self._bars.tasks[self._bars.task_ids.index(self._task)]
        # Early stopping ends a stage before its last step: what ran is then all there was.
        total = task.completed or 1 if task.total is None or task.completed else task.total
        self._bars.update(self._task, completed=total, total=total)
        self._bars.stop_task(self._task)
        self._task = None


def _values(values: Mapping[str, float]) -> str:
    """The loss, every term beside it, and the main score. Terms may be far below it: they keep their digits."""
    shown = []
    for name, value in values.items():
        own = name == "loss" or name in _MAIN
        shown.append(f"{name} {value:.4f}" if own else f"{name} {value:.3g}")
        if name in _MAIN:
            break
    return "  ".join(shown)
