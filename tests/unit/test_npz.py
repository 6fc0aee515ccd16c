"""NPZ files from anywhere: read by name, and what is none is refused in one sentence."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeslim.errors import ConfigError, DataError
from edgeslim.runtime.npz import read_npz


def test_named_arrays_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", frames=np.arange(6), rest=np.zeros(2))
    assert read_npz(tmp_path / "a.npz", ("frames",), error=DataError, hint="")["frames"].tolist() == list(range(6))
    assert set(read_npz(tmp_path / "a.npz", error=DataError, hint="")) == {"frames", "rest"}


def pickled(path: Path) -> None:
    np.savez(path, frames=np.array([object()]))


def plain_array(path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    path.write_bytes(buffer.getvalue())


def no_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("frames.npy", b"text")


def cut(path: Path) -> None:
    np.savez(path, frames=np.zeros((9, 9)))
    path.write_bytes(path.read_bytes()[:200])


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("frames.npy", bytes(2 << 20))


def other_names(path: Path) -> None:
    np.savez(path, images=np.zeros(3))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (pickled, "allow_pickle"),
        (plain_array, "not a zip file"),
        (no_array, "'frames' is no array"),
        (cut, "not a zip file"),
        (bomb, "unpacks to 2,097,152 bytes, at most 1,048,576"),
        (other_names, "no 'frames', only images"),
        (lambda path: path.mkdir(), "directory"),
        (lambda path: None, "No such file"),
    ],
)
def test_what_is_no_file_of_arrays_is_refused(tmp_path: Path, make: object, said: str) -> None:
    path = tmp_path / "a.npz"
    make(path)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=rf"a\.npz cannot be read: .*{said}") as caught:
        read_npz(path, ("frames",), error=ConfigError, hint="write it again", most_bytes=1 << 20)
    assert caught.value.hint == "write it again"
