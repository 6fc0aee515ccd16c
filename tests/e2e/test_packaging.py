"""Guards the layout: no generic module leaks into site-packages, no file is lost between tree, sdist and wheel."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("trainer", "exporter", "runtime", "bench")
PACKAGE = ROOT / "src" / "edgeslim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What the build made: member name -> bytes, without the metadata folder of a wheel."""

    direct: dict[str, bytes]
    """The wheel built from the tree."""
    through_sdist: dict[str, bytes]
    """The wheel built from the sdist: the way that people who install from an index get it."""
    sdist: set[str]
    metadata: str


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dist")
    for kind, options in (("through", []), ("direct", ["--wheel"])):
        command = [sys.executable, "-m", "build", "--no-isolation", *options, "-o", os.fspath(folder / kind), str(ROOT)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = (folder / "through").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    (wheel,) = (folder / "through").glob("*.whl")
    (direct,) = (folder / "direct").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive_:
        metadata = next(n for n in archive_.namelist() if n.endswith(".dist-info/METADATA"))
        text = archive_.read(metadata).decode()
    return Built(direct=_content(direct), through_sdist=_content(wheel), sdist=names, metadata=text)


def _content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {n: archive.read(n) for n in archive.namelist() if ".dist-info/" not in n}


def test_wheel_installs_only_edgeslim(built: Built) -> None:
    assert {name.split("/")[0] for name in built.through_sdist} == {"edgeslim"}


def test_wheel_from_the_sdist_equals_the_direct_wheel(built: Built) -> None:
    assert built.through_sdist == built.direct


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_module_reaches_the_wheel(folder: str, built: Built) -> None:
    tree = {f"edgeslim/{p.relative_to(ROOT).as_posix()}": p.read_bytes() for p in (ROOT / folder).rglob("*.py")}
    assert tree
    assert tree == {n: d for n, d in built.direct.items() if n in tree}


def test_shared_modules_and_data_reach_the_wheel(built: Built) -> None:
    wanted = {
        f"edgeslim/{p.relative_to(PACKAGE).as_posix()}" for p in (*PACKAGE.glob("*.py"), *PACKAGE.glob("cli/*.py"))
    }
    wanted |= {"edgeslim/py.typed", "edgeslim/bench/report/template.html.j2"}
    assert wanted <= set(built.direct)


def test_nothing_but_sources_reaches_the_wheel(built: Built) -> None:
    assert {Path(name).suffix for name in built.direct} == {".py", ".typed", ".j2"}


def test_sdist_holds_what_its_wheel_and_tests_need(built: Built) -> None:
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/e2e/test_packaging.py"} <= built.sdist
    assert not any(name.startswith((".venv/", "runs/")) for name in built.sdist)


def test_metadata_states_licence_versions_and_extras(built: Built) -> None:
    lines = built.metadata.splitlines()
    assert "License-Expression: Apache-2.0" in lines
    assert "Requires-Python: >=3.10" in lines
    extras = {line.removeprefix("Provides-Extra: ") for line in lines if line.startswith("Provides-Extra: ")}
    assert extras == {"runtime", "bench", "export", "profile", "remote", "train", "tensorrt", "rtx", "all"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_development_symlink(folder: str) -> None:
    link = PACKAGE / folder
    assert link.is_symlink(), "git config core.symlinks true, then clone again"
    assert os.readlink(link) == f"../../{folder}"
    assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("folder", FOLDERS)
def test_own_folder_is_imported_relatively(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for name in _absolute_imports(path):
            assert not f"{name}.".startswith(f"edgeslim.{folder}."), f"{path} imports {name}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_folder_is_imported_as_a_top_level_module(folder: str) -> None:
    for path in (
        *(p for f in FOLDERS for p in (ROOT / f).rglob("*.py")),
        *PACKAGE.glob("*.py"),
        *PACKAGE.glob("cli/*.py"),
    ):
        for name in _absolute_imports(path):
            assert name.split(".")[0] != folder, f"{path} imports {name}: write edgeslim.{name}"


def _absolute_imports(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module or "")
    return names
