"""What this side remembers between two calls: who it is to a board, files that are half fetched, and locks.

A half-copied file on a board belongs to one workstation, by a number drawn once. So two workstations never write into
the same file, and a session that hangs on the board after a lost link holds nothing that others wait for. Processes of
one workstation take turns by a lock, which the system frees when its holder dies.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from edgeslim import atomic
from edgeslim.lock import hold
from edgeslim.progress import Progress


def state_folder() -> Path:
    """$XDG_CACHE_HOME/edgeslim/remote, made if it is not there."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path("~/.cache").expanduser()) / "edgeslim" / "remote"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def workstation_id() -> str:
    """A number that stays, by which boards know the parts that this workstation has begun: 12 hex digits."""
    path = state_folder() / "workstation"
    with taking_turns("workstation", None):
        text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        if len(text) != 12 or not set(text) <= set("0123456789abcdef"):
            text = secrets.token_hex(6)
            atomic.write_text(path, text + "\n")
    return text


def part_file(sha256: str) -> Path:
    """Where a file with this hash is kept while it is being fetched."""
    return state_folder() / f"{sha256}.part"


@contextlib.contextmanager
def taking_turns(what: str, progress: Progress | None) -> Iterator[None]:
    """Be the only process of this workstation that does `what`; waits for another, and says so."""

    def tell() -> None:
        if progress is not None:
            progress.note(f"waiting for another edgeslim of this machine: {what}")

    name = hashlib.sha256(what.encode()).hexdigest()[:16]
    with hold(state_folder() / f"{name}.lock", when_taken=tell):
        yield
