"""Boards that lack something, and builds that fail there: the error is the one that the build would raise here."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeslim.errors import BundleError, CertificateError, ConfigError, DeviceError, EdgeslimError, EngineError
from edgeslim.exporter.bundle import write_bundle
from edgeslim.exporter.remote import on_board

from ..unit.conftest import build_manifest, build_model
from .conftest import Bench, write_script

BOTH_WAYS = pytest.mark.parametrize("way", ["sftp", "exec"], indirect=True)


def failure(bench: Bench, bundle: Path, kind: type[EdgeslimError], *arguments: str, **options: object) -> EdgeslimError:
    with pytest.raises(kind) as caught:
        bench.build(bundle, *arguments, **options)
    assert type(caught.value) is kind
    assert caught.value.hint
    assert not bench.cache.exists() or not list(bench.cache.iterdir()), "something was brought back"
    assert "\x1b" not in str(caught.value)
    return caught.value


def test_no_python_there(bench: Bench, bundle: Path) -> None:
    error = failure(bench, bundle, DeviceError, python="python3.99")
    assert "there is no Python named 'python3.99'" in error.message
    assert "--remote-python" in error.hint


def test_an_old_python_there(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    """A stand-in: the real interpreter, which says it is 3.8, for none so old may be at hand."""
    code = "import sys; sys.version_info = (3, 8, 10, 'final', 0); exec(sys.argv.pop(1))"
    old = write_script(tmp_path / "python3.8", f'exec {shlex.quote(sys.executable)} -c "{code}" "$2"\n')
    error = failure(bench, bundle, DeviceError, python=str(old))
    assert "is Python 3.8; edgeslim needs 3.10 or newer" in error.message
    assert "--print-trtexec" in error.hint


def test_no_edgeslim_there(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    bare = write_script(tmp_path / "bare", f'exec {shlex.quote(sys.executable)} -S -E "$@"\n')
    error = failure(bench, bundle, DeviceError, python=str(bare))
    assert "cannot import edgeslim: ModuleNotFoundError" in error.message
    assert f'-m pip install "edgeslim[tensorrt]=={importlib.metadata.version("edgeslim")}"' in error.hint


def test_another_edgeslim_there(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    (packages / "edgeslim").mkdir(parents=True)
    (packages / "edgeslim" / "__init__.py").touch()
    (packages / "edgeslim-99.1.dist-info").mkdir()
    (packages / "edgeslim-99.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: edgeslim\nVersion: 99.1\n"
    )
    path = shlex.quote(str(packages))
    other = write_script(tmp_path / "other", f'PYTHONPATH={path} exec {shlex.quote(sys.executable)} "$@"\n')
    error = failure(bench, bundle, DeviceError, python=str(other))
    assert "has edgeslim 99.1" in error.message
    assert "pip install" in error.hint


def test_an_edgeslim_without_the_verb(bench: Bench, bundle: Path) -> None:
    bench.fault("no verb")
    assert "too old" in failure(bench, bundle, DeviceError).message


def test_what_the_build_cannot_do(bench: Bench, bundle: Path) -> None:
    bench.fault("error")
    error = failure(bench, bundle, EngineError)
    assert error.message == f"{bench.address().shown}: no TensorRT here"
    assert error.hint == "install it\nby JetPack"
    assert f"{bench.address().shown}: about to fail" in bench.heard.notes, "control characters are taken out"


def test_a_check_that_fails_there(bench: Bench, bundle: Path) -> None:
    bench.fault("check")
    error = failure(bench, bundle, CertificateError)
    assert error.exit_code == 3
    assert "differs by 0.5 at node conv1" in error.message
    assert error.hint == "build with fp32"


def test_arguments_that_the_build_does_not_know(bench: Bench, bundle: Path) -> None:
    assert "invalid choice: 'fp4'" in failure(bench, bundle, ConfigError, "--precision", "fp4").message


@pytest.mark.parametrize("argument", ["--cache", "--cache=/tmp", "--json", "--remote=ssh://x", "--identity"])
def test_arguments_that_are_edgeslims_own(bench: Bench, bundle: Path, argument: str) -> None:
    assert argument in failure(bench, bundle, ConfigError, argument).message
    assert not bench.folder.exists()


def test_a_build_that_is_killed(bench: Bench, bundle: Path) -> None:
    bench.fault("killed")
    error = failure(bench, bundle, EngineError)
    assert "was ended by SIGKILL" in error.message
    assert "memory" in error.hint


def test_a_build_whose_board_is_switched_off(bench: Bench, bundle: Path) -> None:
    """Its supervisor is gone and has left no exit code."""
    import signal

    def end(text: str) -> None:
        if text.endswith("reading the bundle"):
            (job,) = bench.folder.glob("jobs/*")
            pid = int((job / "pid").read_text())
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(parent, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)

    bench.fault("waits")
    bench.heard.on_note = end
    error = failure(bench, bundle, EngineError)
    assert "cut off there without a result" in error.message
    bench.fault()
    bench.heard.on_note = lambda text: None
    assert bench.build(bundle).engines


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"kind": "garbage"}, "hello"),
        ({"kind": "none"}, "without engines"),
        ({"kind": "", "told": {"engine": "model.engine"}}, "no absolute path"),
        ({"kind": "", "told": {"engine": "/etc/.hidden"}}, "no absolute path"),
        ({"kind": "", "told": {"sidecar": "/tmp/a\nb"}}, "no absolute path"),
        ({"kind": "", "told": {"sha256": "abc"}}, "sha256 'abc'"),
        ({"kind": "", "told": {"bytes": "many"}}, "bytes: str where int"),
        ({"kind": "", "told": {"engine": "/a/x.engine", "sidecar": "/b/x.engine"}}, "no names of an engine"),
        ({"kind": "", "told": {"engine": "/a/train.py", "sidecar": "/a/train.json"}}, "no names of an engine"),
        ({"kind": "", "told": {"engine": "/a/board-x.engine", "sidecar": "/a/board-x.json"}}, "no names of an engine"),
        ({"kind": "", "told": {"engine": "/a\u001b[2J/x.engine"}}, "no absolute path"),
        ({"kind": "twice"}, "the same name twice"),
        (
            {"kind": "", "told": {"engine": "/not/there.engine", "sidecar": "/not/there.json"}},
            "which is not there",
        ),
    ],
)
def test_answers_that_are_none(bench: Bench, bundle: Path, fault: dict[str, object], said: str) -> None:
    bench.fault(**fault)  # type: ignore[arg-type]
    assert said in failure(bench, bundle, EngineError).message


def test_an_engine_with_another_hash_than_the_build_said(bench: Bench, bundle: Path) -> None:
    bench.fault("other hash")
    error = failure(bench, bundle, EngineError)
    assert "0" * 64 in error.message
    assert "it was not fetched" in error.message


def test_an_engine_that_changes_while_it_is_fetched(
    bench: Bench, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeslim.exporter.remote import build

    real = build.fetch

    def swap(*arguments: object, **more: object) -> object:
        (engine,) = bench.folder.glob("engines/*.engine")
        data = bytearray(engine.read_bytes())
        data[100] ^= 1
        engine.write_bytes(data)
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "fetch", swap)
    assert "it was not kept" in failure(bench, bundle, EngineError).message


def test_a_bundle_that_is_damaged_here(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(bundle, tmp_path / "copy.bundle")
    (copy / "model.onnx").write_bytes(b"?" + (copy / "model.onnx").read_bytes()[1:])
    assert "nothing of it was sent" in failure(bench, copy, BundleError).message
    assert "no bundle at" in failure(bench, tmp_path / "none.bundle", BundleError).message


@BOTH_WAYS
def test_a_shell_that_greets(bench: Bench, bundle: Path) -> None:
    """As a .bashrc does: before every answer, without an end of line, on both streams."""
    greeting = '[ "$1" = -m ] || { printf "hi "; echo hello >&2; }\n'  # the build itself is started without a shell
    bench.python.write_text(bench.python.read_text().replace("#!/bin/sh\n", "#!/bin/sh\n" + greeting, 1))
    assert bench.build(bundle).engines
    bench.fault(bytes=1000)
    assert bench.build(bundle, "--precision", "fp16").engines


def test_a_python_that_is_none(bench: Bench, bundle: Path) -> None:
    error = failure(bench, bundle, DeviceError, python="/bin/true")
    assert "no answer" in error.message


def test_a_folder_that_cannot_be_made(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = failure(bench, bundle, DeviceError, directory=str(tmp_path / "file" / "folder"))
    assert "cannot be used" in error.message
    assert "--remote-dir" in error.hint


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB; only root may mount one."""
    place = tmp_path / "small disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_board(bench: Bench, large_bundle: Path, small_disk: Path) -> None:
    error = failure(bench, large_bundle, DeviceError, directory=str(small_disk))
    assert "6.3 MB free; 8.4 MB of the bundle" in error.message
    assert not list(small_disk.rglob("*.part"))


@BOTH_WAYS
def test_a_board_that_becomes_full(
    bench: Bench, large_bundle: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if something else took the space after the look at it; then there is space again, and the copy goes on."""
    from edgeslim.exporter.remote import transfer

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_check_space", lambda *arguments: None)
        error = failure(bench, large_bundle, DeviceError, directory=str(small_disk))
    assert "became full during the copy" in error.message
    assert "what has arrived is kept" in error.message
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    done = bench.build(large_bundle, directory=str(small_disk))
    assert done.sent.resumed_bytes >= 4 << 20


@pytest.mark.parametrize("way", ["exec"], indirect=True)
def test_data_is_never_taken_for_a_request(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes behind those that a full disk took are lines that ask the board to start a program."""
    started = tmp_path / "started"
    program = write_script(tmp_path / "program", f"touch {shlex.quote(str(started))}\n")
    request = {"work": "start", "job": str(tmp_path / "job"), "python": str(program), "arguments": []}
    lines = (json.dumps(request) + "\n").encode() * 80_000
    bundle = write_bundle(
        tmp_path / "crafted.bundle", model=build_model(), manifest=build_manifest(), files={"docs/lines": lines}
    )
    text = bench.python.read_text()
    bench.python.write_text(text.replace("#!/bin/sh\n", "#!/bin/sh\nulimit -f 4096\n", 1))
    assert "became full during the copy" in failure(bench, bundle, DeviceError).message
    assert not started.exists()
    # The planted fault: the same line as a request does start it.
    subprocess.run([sys.executable, on_board.__file__], input=lines[: len(lines) // 80_000], check=True, timeout=30)
    deadline = time.monotonic() + 30
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert started.exists()


@pytest.mark.parametrize("way", ["exec"], indirect=True)
def test_a_limit_on_files_there(bench: Bench, large_bundle: Path) -> None:
    """`ulimit -f`: the board's Python meets it and says so. (An SFTP server is not started by the limited shell.)"""
    text = bench.python.read_text()
    bench.python.write_text(text.replace("#!/bin/sh\n", "#!/bin/sh\nulimit -f 4096\n", 1))
    assert "became full during the copy" in failure(bench, large_bundle, DeviceError).message
