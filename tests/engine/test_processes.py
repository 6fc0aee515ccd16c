"""Real processes and the real builder: two at once, one that is killed, one whose disk is full."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeslim.runtime.engines import EngineStore, engines_folder

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed: pip install 'edgeslim[rtx]'")
pytestmark = pytest.mark.slow

KILLED = """
import os, signal, sys
from edgeslim.exporter.engine import verb
from edgeslim.runtime.engines import store

def die(*given, **named):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[1] == "building":
    verb.build = die
elif sys.argv[1] == "writing the engine":
    os.fsync = die  # the file is written and has not got its name
else:
    store.write_text = die
from edgeslim.cli import main
sys.argv[1:2] = []
main()
"""


NO_LARGE_FILES = """
import resource
from edgeslim.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
main()
"""


def start(bundle: Path, *program: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    words = ["build", str(bundle), "--backend", "tensorrt-rtx", "--sm", "86", "--json", *options]
    return subprocess.Popen(
        [sys.executable, *(program or ("-m", "edgeslim")), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_three_builds_at_once_make_one_engine(tiny: Path) -> None:
    answers = [finish(process) for process in [start(tiny) for _ in range(3)]]
    assert [code for code, _, _ in answers] == [0, 0, 0], answers
    engines = [json.loads(out)["engines"][0] for _, out, _ in answers]
    assert sorted(engine["reused"] for engine in engines) == [False, True, True]
    assert len({engine["sha256"] for engine in engines}) == 1
    left = sorted(path.suffix for path in engines_folder(tiny).iterdir())
    assert left == [".engine", ".json"]


@pytest.mark.parametrize("moment", ["building", "writing the engine", "writing the record"])
def test_a_killed_build_leaves_nothing_that_counts(moment: str, tiny: Path) -> None:
    code, out, _ = finish(start(tiny, "-c", KILLED, moment))
    assert code == -9 and out == ""
    folder = engines_folder(tiny)
    assert list(folder.iterdir()) and EngineStore(folder).engines() == ()
    code, out, err = finish(start(tiny))
    assert code == 0, err
    assert not json.loads(out)["engines"][0]["reused"]
    assert sorted(path.suffix for path in folder.iterdir()) == [".engine", ".json"]


def test_a_disk_without_space_keeps_what_was_there(tiny: Path) -> None:
    assert finish(start(tiny))[0] == 0
    before = {path.name: path.read_bytes() for path in engines_folder(tiny).iterdir()}
    code, out, err = finish(start(tiny, "-c", NO_LARGE_FILES, options=("--level", "1")))
    assert (code, out) == (1, "") and "the engine could not be written to" in err and "--cache" in err
    assert {path.name: path.read_bytes() for path in engines_folder(tiny).iterdir()} == before


def test_notes_of_json_go_to_stderr(tiny: Path) -> None:
    code, out, err = finish(start(tiny, options=("--precision", "fp32", "--precision", "fp16")))
    assert code == 0 and len(json.loads(out)["engines"]) == 2
    assert "logger" not in err and "createInfer" not in err
