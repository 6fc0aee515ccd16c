"""What the README shows works: its Python runs, its recipe trains, its commands parse, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml

from edgeslim.cli.app import app
from edgeslim.trainer.recipe_file import load_recipe, parse_recipe

from .tiny import run_edgeslim, write_pictures

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks in this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """The arguments of every line of a shell block that starts with `program`, without comments and redirections."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    words = [shlex.split(line.partition(" > ")[0], comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == [program]]


def test_the_python_runs(tmp_path: Path) -> None:
    """All blocks but the net, one after the other in one folder: the last loads what the one before has written."""
    scripts = [block for block in blocks("python") if not block.startswith("# my_package")]
    assert len(scripts) == 2
    for script in scripts:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "net.bundle" / "manifest.json").is_file()


def test_the_recipe_and_the_net_train(tmp_path: Path) -> None:
    (net,) = (block for block in blocks("python") if block.startswith("# my_package/nets.py"))
    recipe, model = map(yaml.safe_load, blocks("yaml"))
    parse_recipe(dict(recipe))
    recipe["model"] = model["model"]
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "nets.py").write_text(net)
    (tmp_path / "my-recipe.yaml").write_text(yaml.safe_dump(recipe))
    write_pictures(tmp_path / "data")
    short = ("--set", "train.steps=1", "--set", "train.batch_size=1")
    done = run_edgeslim("train", "my-recipe.yaml", "--out", "run", *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_there_are_command_lines() -> None:
    assert {line[0] for line in commands("edgeslim")} == {
        "compress", "train", "export", "quantize", "build", "bench", "inspect", "doctor",
    }  # fmt: skip


@pytest.mark.parametrize("arguments", commands("edgeslim"), ids=" ".join)
def test_the_command_lines_parse(arguments: list[str]) -> None:
    group = typer.main.get_command(app)
    context = group.make_context("edgeslim", list(arguments))
    name, command, rest = group.resolve_command(context, list(arguments))  # type: ignore[attr-defined]
    command.make_context(name, rest, parent=context)


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line[0] for line in commands("make")} | set(re.findall(r"`make\s([a-z-]+)`", README))
    assert {"demo", "test"} <= named <= targets


def test_the_links_lead_somewhere() -> None:
    for document in (ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in target and not (document.parent / target).exists():
                pytest.fail(f"{document.relative_to(ROOT)} links to {target}, which is not there")


def test_the_shipped_recipes_are_valid() -> None:
    for path in (ROOT / "recipes").glob("*.yaml"):
        assert load_recipe(path).name == path.stem
