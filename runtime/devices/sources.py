"""Where everything that is read of a device comes from: a tree of files, and commands.

Both can be exchanged: a test gives a folder that holds the texts of a board it does not have. A command gets an end
after `timeout_s`, and what goes wrong with it comes back as one line, never as an exception.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What became of a command."""

    stdout: str
    problem: str | None
    """Why it did not end well, in one line; None: it did."""


Run: TypeAlias = Callable[[Sequence[str], float], Ran]
"""Command and its longest time in seconds -> what became of it; never raises."""


def run_command(command: Sequence[str], timeout_s: float) -> Ran:
    """Run a program without a shell and without input."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return Ran(stdout="", problem=f"no answer within {timeout_s:g} s")
    except (OSError, ValueError) as error:  # ValueError: a NUL in a path
        return Ran(stdout="", problem=str(error))
    stdout, stderr = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    if done.returncode == 0:
        return Ran(stdout=stdout, problem=None)
    last = ([line.strip() for line in (stderr or stdout).splitlines() if line.strip()] or ["no message"])[-1]
    return Ran(stdout=stdout, problem=f"{_ending(done.returncode)}: {last}")


def _ending(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"ended by signal {-returncode}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """A tree of files, the machine's own unless another is given, and a way to run commands."""

    root: Path = Path("/")
    run: Run = run_command

    def path(self, name: str) -> Path:
        """An absolute path of the device, below the root."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """A file's text without NULs and white space at its ends; None if it cannot be read or holds nothing."""
        try:
            return self.path(name).read_text(errors="replace").strip("\0 \t\r\n") or None
        except OSError:
            return None

    def exists(self, name: str) -> bool:
        """Whether something is there that this process may see."""
        return os.path.exists(self.path(name))

    def glob(self, pattern: str) -> list[str]:
        """Paths of the device that fit the pattern, sorted; none where a folder cannot be read."""
        try:
            return sorted("/" + str(path.relative_to(self.root)) for path in self.root.glob(pattern.lstrip("/")))
        except OSError:
            return []


def first_match(pattern: str, text: str | None) -> str | None:
    """The first group of the first match of a multi-line pattern."""
    found = re.search(pattern, text or "", re.MULTILINE)
    return found.group(1).strip() if found else None
