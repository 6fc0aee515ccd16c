"""The directory of a run: made, reused, or emptied on request, and never somebody's other folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeslim.errors import ConfigError

OURS = frozenset(
    {"bench.json", "compact.bundle", "dense.bundle", "recipe.json", "report.html", "result.json", "stages"}
)
"""What a run consists of; a folder with anything else in it is somebody's, and never emptied."""


@contextmanager
def run_directory(path: Path, fresh: bool) -> Iterator[Path]:
    """The run's directory, made if it is not there; with `fresh` without what an earlier run left.

    If the block fails before anything was written, a directory made here is removed again.
    Raises ConfigError for a file, for a folder that is no run, and for one that cannot be made.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"--out {path} is a file", "give a folder")
    foreign = sorted(e.name for e in path.iterdir() if not _is_ours(e.name)) if path.is_dir() else []
    if foreign:
        raise ConfigError(f"--out {path} holds {foreign[0]}, which is no part of a run", "give an empty or new folder")
    made = not path.exists()
    try:
        if fresh and path.is_dir():
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {path} cannot be made: {error.strerror}", "give another folder") from error
    try:
        yield path
    except BaseException:
        if made:
            with suppress(OSError):
                path.rmdir()  # succeeds only while it is empty
        raise


def _is_ours(name: str) -> bool:
    """A part of a run, or the draft of one that a killed run left behind."""
    return name in OURS or name.startswith(tuple(f".{part}." for part in OURS))
