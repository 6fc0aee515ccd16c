"""Keeps the solver's stray lines off stdout, which belongs to results.

Some versions of HiGHS print a line of their own when they repair a solution, whatever they were told about output
(`HighsMipSolverData::transformNewIntegerFeasibleSolution`, seen in SciPy 1.17). It is C that writes, past `sys.stdout`:
so the file descriptor itself leads elsewhere meanwhile, and what is not the solver's is written out afterwards.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

STRAY = b"Highs"
"""What the solver's own lines begin with."""


@contextmanager
def stray_lines_dropped() -> Iterator[None]:
    """What this process writes to stdout meanwhile comes when it is over, in order, without the solver's lines."""
    _flush()
    try:
        stdout = os.dup(1)
    except OSError:  # nobody has a stdout to keep clean
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 1)
        try:
            yield
        finally:
            _flush()
            os.dup2(stdout, 1)
            os.close(stdout)
            held.seek(0)
            rest = b"".join(line for line in held if not line.startswith(STRAY))
            while rest:
                rest = rest[os.write(1, rest) :]


def _flush() -> None:
    """Empty the buffers of Python and of C, so that every line goes where stdout leads now."""
    if sys.stdout is not None:
        sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)
