"""The command line and one finished run of the tiny recipe, for all end-to-end tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .tiny import Cli, run_edgeslim, write_recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished `compress --json` of the tiny recipe. Tests must not change its directory."""

    recipe: Path
    directory: Path
    outcome: Mapping[str, Any]
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def cli() -> Cli:
    return run_edgeslim


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("finished")
    recipe = write_recipe(folder / "tiny.yaml")
    done = run_edgeslim("compress", recipe, "--out", folder / "run", "--json")
    assert done.returncode == 0, done.stderr
    return Run(
        recipe=recipe,
        directory=folder / "run",
        outcome=json.loads(done.stdout),
        stdout=done.stdout,
        stderr=done.stderr,
    )


@pytest.fixture
def run_copy(finished: Run, tmp_path: Path) -> Path:
    """The directory of the finished run, for a test to change."""
    return Path(shutil.copytree(finished.directory, tmp_path / "run"))
