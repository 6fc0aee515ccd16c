"""Files that are either the old ones or the new ones, never half of each.

A killed process or a full disk during a write must leave what was there before. So everything is
written beside its destination under a temporary name, flushed to the disk, and moved into place
with one rename. Directories are exchanged with `renameat2(RENAME_EXCHANGE)` where the kernel has it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file `path` by `data`; on any failure the old file is intact. Raises OSError.

    A device or a pipe is refused: a rename would put a file in its place, for everybody who uses it.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "There is something that is not a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)  # a write to a descriptor does not know it
        raise
    _sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace the text file `path` (UTF-8) the way `write_bytes` does. Raises OSError."""
    write_bytes(path, text.encode())


@contextmanager
def replaced_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `path` when the block ends without an error.

    On an error the new directory is removed and the old one is untouched. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        os.chmod(draft, 0o777 & ~_umask())
        yield draft
        for file in draft.rglob("*"):
            _sync(file)
        _move_into_place(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _sync_directory(path.parent)


def _move_into_place(draft: Path, path: Path) -> None:
    """Rename `draft` to `path`; what was at `path` ends up at `draft`."""
    if not path.exists():
        os.rename(draft, path)
    elif not _exchange(draft, path):
        # Two renames: a kill exactly between them leaves the old directory under its `.old` name.
        parked = path.with_name(f".{path.name}.old")
        shutil.rmtree(parked, ignore_errors=True)
        os.rename(path, parked)
        os.rename(draft, path)
        shutil.rmtree(parked, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step; False where kernel or file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    # Some network file systems refuse to sync a directory; the rename itself has happened.
    with suppress(OSError):
        _sync(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
