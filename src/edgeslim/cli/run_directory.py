"""The directory of a run: made, reused, or emptied on request, and never somebody's other folder.

One process at a time works in it. Whoever holds the lock may remove the drafts that a killed run left behind.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgeslim.errors import ConfigError
from edgeslim.lock import hold

OURS = frozenset(
    {
        "bench.json", "compact.bundle", "dense.bundle", "front", "front.json", "plans.json", "recipe.json",
        "rehearsed-plans.json", "report.html", "result.json", "stages", "validation.npz",
    }
)  # fmt: skip
"""What a run consists of; a folder with anything else in it is somebody's, and never emptied."""
LOCK = ".lock"


@contextmanager
def run_directory(path: Path, fresh: bool) -> Iterator[Path]:
    """The run's directory, made if it is not there and locked; with `fresh` without what an earlier run left.

    If the block fails before anything was written, a directory made here is removed again.
    Raises ConfigError for a file, for a folder that is no run or that another process works in, and for one that
    cannot be made.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"--out {path} is a file", "give a folder")
    foreign = sorted(e.name for e in path.iterdir() if not _is_ours(e.name)) if path.is_dir() else []
    if foreign:
        raise ConfigError(f"--out {path} holds {foreign[0]}, which is no part of a run", "give an empty or new folder")
    made = not path.exists()
    try:
        with _locked(path):
            _sweep(path, fresh)
            yield path
    except BaseException:
        if made:
            with suppress(OSError):
                path.rmdir()  # succeeds only while it is empty
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Make the directory and hold its lock. Raises ConfigError."""

    def refuse() -> None:
        raise ConfigError(
            f"--out {path} is in use: another edgeslim works in it", "wait for it, or give another folder"
        )

    with ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out {path} cannot be made: {error.strerror}", "give another folder") from error
        try:
            stack.enter_context(hold(path / LOCK, when_taken=refuse))
        except OSError as error:  # a folder of somebody else's, or a network file system without locks
            raise ConfigError(
                f"--out {path} cannot be locked: {error.strerror}", "give a folder of your own on a local disk"
            ) from error
        yield


def _sweep(path: Path, fresh: bool) -> None:
    """Remove what a killed run left half written, with `fresh` everything; bring back what it had put aside."""
    points = [entry for entry in path.glob("front/*") if entry.is_dir()]  # runs within the run, see `trainer.front`
    places = [path, path / "stages", *points, *(point / "stages" for point in points)]
    for parked in [entry for place in places for entry in place.glob(".*.old")]:
        place = parked.with_name(parked.name[1 : -len(".old")])
        if place.exists():
            _remove(parked)
        else:  # killed between the two renames of an exchange: it is the only copy
            parked.rename(place)
    for entry in [*path.iterdir(), *(entry for place in places[1:] for entry in place.glob(".*"))]:
        if entry.name != LOCK and (_is_draft(entry.name) or fresh) and entry.exists():
            _remove(entry)


def _is_ours(name: str) -> bool:
    """A part of a run, or what `edgeslim.atomic` puts beside one while it is written."""
    return name in OURS or name == LOCK or name.startswith(tuple(f".{part}." for part in OURS))


def _is_draft(name: str) -> bool:
    """Half-written, for nobody writes while we hold the lock."""
    return name.startswith(".") and name != LOCK


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
