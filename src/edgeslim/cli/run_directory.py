"""The directory of a run: new, reused, or emptied on request, and never somebody's other folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgeslim.errors import ConfigError

MARKS = ("recipe.json", "stages")
"""What makes a folder a run."""


def open_run(path: Path, fresh: bool) -> Path:
    """Check the run's directory, which need not exist yet; with `fresh` remove what an earlier run left.

    The first thing written makes it, so that a recipe that fails leaves nothing behind.
    Raises ConfigError for a file, for a folder that is no run, and for one that cannot be removed.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"--out {path} is a file", "give a folder")
    if path.is_dir() and any(path.iterdir()) and not any((path / mark).exists() for mark in MARKS):
        raise ConfigError(f"--out {path} holds other files and no run of edgeslim", "give an empty or new folder")
    try:
        if fresh and path.is_dir():
            shutil.rmtree(path)
    except OSError as error:
        raise ConfigError(f"--out {path} cannot be removed: {error.strerror}", "check its permissions") from error
    return path
