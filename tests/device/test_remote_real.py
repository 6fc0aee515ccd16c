"""The whole way with nothing that stands for another: a real sshd, the real verb there, the real builder for RTX."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeslim.cli.app import app
from edgeslim.errors import EngineError
from edgeslim.runtime.engines import EngineStore

from ..engine.bundles import write_tiny
from .conftest import Bench

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed: pip install 'edgeslim[rtx]'")


def arguments(bench: Bench, bundle: Path, *more: str) -> list[str]:
    there = [
        "--remote",
        str(bench.address()),
        "--remote-python",
        str(bench.real_python),
        "--remote-dir",
        str(bench.folder),
    ]
    return ["build", str(bundle), *there, "--cache", str(bench.cache), "--backend", "tensorrt-rtx", *more]


@pytest.mark.slow
def test_an_engine_is_built_over_there_and_found_here(bench: Bench, tmp_path: Path) -> None:
    bundle = write_tiny(tmp_path / "tiny.bundle")
    words = arguments(
        bench, bundle, "--sm", "86", "--precision", "fp32", "--precision", "fp16", "--no-timing-cache", "--json"
    )
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [engine["precision"] for engine in told["engines"]] == ["fp32", "fp16"]
    stored = EngineStore(bench.cache).engines()
    assert {engine.record.spec.precision for engine in stored} == {"fp32", "fp16"}
    for engine in stored:
        assert len(engine.read()) == engine.record.engine.bytes > 1000
        assert engine.record.spec.targets == ("86",) and engine.record.unchecked is not None
    assert not (tmp_path / "tiny.bundle.engines").exists()


@pytest.mark.slow
def test_the_board_s_own_words_come_back(bench: Bench, tmp_path: Path) -> None:
    bundle = write_tiny(tmp_path / "tiny.bundle")
    with pytest.raises(EngineError, match="does not build for compute capability 99"):
        CliRunner().invoke(app, arguments(bench, bundle, "--sm", "99"), catch_exceptions=False)


def test_what_is_for_this_machine_is_not_sent(bench: Bench, tmp_path: Path) -> None:
    bundle = write_tiny(tmp_path / "tiny.bundle")
    done = CliRunner().invoke(app, arguments(bench, bundle, "--print-trtexec"))
    assert done.exit_code == 2 and "leave out --remote" in done.output
