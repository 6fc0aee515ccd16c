"""What the command line shows of a remote build."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeslim.cli.remote_build import build_there

from .conftest import Bench


def run(bench: Bench, bundle: Path, *, json: bool) -> None:
    build_there(
        bundle,
        str(bench.address()),
        ["--precision", "fp16"],
        bench.cache,
        remote_python=str(bench.python),
        remote_dir=str(bench.folder),
        json=json,
    )


def test_json_is_all_there_is_on_stdout(bench: Bench, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(bench, bundle, json=True)
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert told["remote"] == str(bench.address())
    (engine,) = told["engines"]
    assert Path(engine["engine"]).stat().st_size == engine["bytes"]
    assert told["sent"]["way"] == "sftp"
    assert told["build"]["tensorrt"] == "none, a stand-in"
    assert "reading the bundle" in shown.err


def test_a_table_for_people(bench: Bench, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(bench, bundle, json=False)
    shown = capsys.readouterr()
    assert "fp16" in shown.out
    assert "report of the board" in shown.out


WITHOUT = """
import sys
sys.modules["asyncssh"] = None
from pathlib import Path
from edgeslim.cli.remote_build import build_there
from edgeslim.errors import DeviceError
try:
    build_there(Path("x.bundle"), "ssh://orin", (), Path("engines"))
except DeviceError as error:
    print(error)
"""


def test_without_the_extra() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60, check=True)
    assert "needs the package asyncssh" in done.stdout
    assert "edgeslim[remote]" in done.stdout


def test_the_options_alone_load_no_library() -> None:
    code = "import sys, edgeslim.cli.remote_build; print([n for n in ('asyncssh', 'cryptography') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
