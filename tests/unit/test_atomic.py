"""Atomic writes: whatever fails, the old content is whole and nothing half-written is left behind."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgeslim import atomic
from edgeslim.atomic import replaced_directory, write_bytes, write_text


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_bytes(path, b"old")
    write_text(path, "neü")
    assert path.read_bytes() == "neü".encode()
    assert names(path.parent) == ["file"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", b"")
        with replaced_directory(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "file", b"old")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_a_directory_is_replaced_as_a_whole(tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda a, b: False)
    for generation in ("first", "second"):
        with replaced_directory(tmp_path / "folder") as draft:
            (draft / "deep").mkdir()
            (draft / "deep" / generation).write_text(generation)
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder" / "deep") == ["second"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failed_block_leaves_the_old_directory(tmp_path: Path, failure: type[BaseException]) -> None:
    with replaced_directory(tmp_path / "folder") as draft:
        (draft / "file").write_text("old")
    with pytest.raises(failure), replaced_directory(tmp_path / "folder") as draft:
        (draft / "file").write_text("new")
        raise failure
    assert (tmp_path / "folder" / "file").read_text() == "old"
    assert names(tmp_path) == ["folder"]


FULL = """
import resource
from pathlib import Path
from edgeslim.atomic import replaced_directory, write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for attempt in ("file", "folder"):
    try:
        if attempt == "file":
            write_bytes(Path("file"), bytes(2000))
        else:
            with replaced_directory(Path("folder")) as draft:
                (draft / "small").write_bytes(bytes(500))
                (draft / "large").write_bytes(bytes(2000))
    except OSError as error:
        print(error.strerror)
"""

KILLED = """
import os, signal, sys
from pathlib import Path
from edgeslim import atomic
def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "file":
    os.fsync = kill
    atomic.write_bytes(Path("file"), b"new")
else:
    with atomic.replaced_directory(Path("folder")) as draft:
        (draft / "small").write_bytes(b"new")
        os.fsync = kill
"""


def run(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with `file` and `folder/small`, both old."""
    write_bytes(tmp_path / "file", b"old")
    with replaced_directory(tmp_path / "folder") as draft:
        (draft / "small").write_bytes(b"old")
    return tmp_path


def is_old(folder: Path) -> bool:
    return (folder / "file").read_bytes() == (folder / "folder" / "small").read_bytes() == b"old"


def test_a_full_disk(old: Path) -> None:
    child = run(FULL, old)
    assert child.stdout.split("\n") == ["File too large", "File too large", ""], child.stderr
    assert is_old(old)
    assert names(old) == ["file", "folder"]
    assert names(old / "folder") == ["small"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_killed_process(old: Path, what: str) -> None:
    assert run(KILLED, old, what).returncode == -9
    assert is_old(old)


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """As root, writing to /dev/null would put a file there."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError):
        write_bytes(tmp_path / "pipe", b"new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]
