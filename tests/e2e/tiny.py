"""The real command, in processes of its own, on a recipe so small that the whole job takes seconds."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml
from PIL import Image

from edgeslim.cli import main

EXECUTABLE = Path(sys.executable).with_name("edgeslim")
TIMEOUT_S = 300.0

FIT = {"steps": 2, "batch_size": 2, "evaluate_every": 2, "warmup_steps": 0}
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "model": {"name": "unet", "args": {"width": 8, "depth": 1}},
    "data": {"name": "vessels", "train": 6, "test": 2, "size": [64, 64]},
    "augment": {"crop": [32, 32]},
    "train": {**FIT, "steps": 4},
    "sparsify": {"fit": FIT},
    "prune": {
        "criterion": {"name": "ln_norm", "images": 2},
        "budget": {"name": "macs", "keep": 0.5},
        "width_multiple": 2,
        "min_width": 2,
        "schedule": {"rounds": 2, "between": FIT},
    },
    "finetune": {"fit": FIT},
    "bench": {"samples": 20, "seconds": 1.0},
}


class Cli(Protocol):
    """Runs `edgeslim` to its end. file_bytes: the largest file it may write, as on a disk that is nearly full."""

    def __call__(
        self, *arguments: str | Path, cwd: Path | None = None, file_bytes: int | None = None
    ) -> subprocess.CompletedProcess[str]: ...


def run_edgeslim(
    *arguments: str | Path, cwd: Path | None = None, file_bytes: int | None = None
) -> subprocess.CompletedProcess[str]:
    """See Cli."""

    def limit() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    return subprocess.run(
        command_line(arguments),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        preexec_fn=limit,
        env={**os.environ, "COLUMNS": "200"},
    )


def call_edgeslim(
    *arguments: str | Path, cwd: Path | None = None, file_bytes: int | None = None
) -> subprocess.CompletedProcess[str]:
    """The same within this process, which has loaded torch already; an exception that reaches the user is raised."""
    out, err, code = io.StringIO(), io.StringIO(), None
    with _in_folder(cwd), _small_files(file_bytes), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        before, sys.argv = sys.argv, command_line(arguments)
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            sys.argv = before
    assert isinstance(code, int)
    return subprocess.CompletedProcess(command_line(arguments), code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _in_folder(folder: Path | None) -> Iterator[None]:
    """Work in `folder`; forget afterwards what was imported from there."""
    start, path, modules = os.getcwd(), list(sys.path), set(sys.modules)
    os.chdir(folder or start)
    try:
        yield
    finally:
        os.chdir(start)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if folder is not None and str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]


@contextlib.contextmanager
def _small_files(limit: int | None) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft if limit is None else limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def command_line(arguments: Sequence[str | Path]) -> list[str]:
    """The installed command with these arguments."""
    return [os.fspath(EXECUTABLE), *map(os.fspath, arguments)]


def write_recipe(path: Path, **sections: object) -> Path:
    """The tiny recipe with some sections replaced, as YAML."""
    path.write_text(yaml.safe_dump({**RECIPE, **sections}, sort_keys=False))
    return path


def folder_section(root: Path, **more: object) -> dict[str, object]:
    """The recipe's data section for pictures in `root`."""
    return {"name": "segmentation-folder", "root": str(root), "classes": ["background", "vessel"], **more}


def write_pictures(root: Path, count: int = 8, side: int = 64) -> Path:
    """images/ and masks/ with bright discs on noise: class 1 inside, class 0 outside."""
    rows, columns = np.mgrid[:side, :side]
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        centre = rng.integers(side // 4, 3 * side // 4, 2)
        mask = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (side // 5) ** 2).astype(np.uint8)
        image = rng.integers(0, 100, (side, side, 3)) + 120 * mask[:, :, None]
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{number:02d}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number:02d}.png")
    return root
