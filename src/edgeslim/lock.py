"""One process at a time: a lock that ends with its holder, however that ends.

The lock is the kernel's, on a file that is removed when it is given back; a file that a killed process left behind
locks nobody out.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def hold(path: Path, *, when_taken: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`, whose folder exists, until the block ends.

    when_taken: called once where another process holds it; if it returns, the other is waited for.
    Raises OSError where the file cannot be made or the file system has no locks, and what `when_taken` raises.
    """
    lock = _take(path, when_taken)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _take(path: Path, when_taken: Callable[[], None]) -> int:
    """The open descriptor that holds the lock."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                when_taken()
                fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(path)):
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # its last holder removed the file after we had opened it: take the new one
