"""Named arrays from an NPZ file that anybody may have written: no pickles, no bombs, one sentence on what is wrong."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import EdgeslimError, first_line

MOST_BYTES = 1 << 32
"""What a small archive may claim to hold unless told otherwise; more is refused before it is unpacked."""


def read_npz(
    path: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    *,
    error: type[EdgeslimError],
    hint: str,
    most_bytes: int = MOST_BYTES,
) -> dict[str, NDArray[np.generic]]:
    """The arrays of these names, all where None.

    Raises `error` with `hint` for a file that is not there, is no NPZ, holds objects, lacks a name, or claims to unpack
    to more than `most_bytes`.
    """
    try:
        with open(path, "rb") as opened, zipfile.ZipFile(opened) as archive:
            members = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
            wanted = list(members) if names is None else list(names)
            missing = [name for name in wanted if name not in members]
            if missing:
                raise ValueError(f"it has no {missing[0]!r}, only {', '.join(sorted(members)) or 'nothing'}")
            claimed = sum(members[name] for name in wanted)
            if claimed > most_bytes:
                raise ValueError(f"it unpacks to {claimed:,} bytes, at most {most_bytes:,} are read")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in wanted}
        strange = [name for name, array in found.items() if not isinstance(array, np.ndarray)]
        if strange:
            raise ValueError(f"{strange[0]!r} is no array")
        return found
    except MemoryError:
        raise
    except Exception as problem:  # foreign bytes: what NumPy and zipfile raise on them is an open set
        said = problem.strerror if isinstance(problem, OSError) and problem.strerror else first_line(problem)
        raise error(f"{os.fspath(path)} cannot be read: {said}", hint) from problem
