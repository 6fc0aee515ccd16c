"""Training runs of seconds, on generated images: what the tests of the loop share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from edgeslim.progress import Progress, Silent
from edgeslim.trainer.fit import FitResult, fit
from edgeslim.trainer.recipe import FitSection, Recipe
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.task import Task
from edgeslim.trainer.workspace import Workspace

STEPS, EVERY = 12, 3


def recipe() -> Recipe:
    return parse_recipe(
        {
            "name": "tiny",
            "model": {"name": "unet", "args": {"width": 4, "depth": 1}},
            "data": {"name": "vessels", "train": 4, "validation": 0.25, "test": 1, "size": [48, 48]},
            "augment": {"crop": [32, 32], "brightness": 0.2, "rotate_degrees": 10.0},
            "train": {"steps": STEPS, "batch_size": 2, "evaluate_every": EVERY, "warmup_steps": 2},
            "prune": {"budget": {"name": "ratio", "ratio": 0.5}},
            "finetune": {"fit": {"steps": 1}},
        }
    )


def section(**changes: object) -> FitSection:
    return recipe().train.model_copy(update=changes)


class Interrupted(Exception):
    """Raised from the progress callback, as Ctrl-C would come."""


class StopAt(Silent):
    """Interrupts at the `call`-th report of step `step` (an evaluated step reports twice)."""

    def __init__(self, step: int, call: int = 1) -> None:
        super().__init__()
        self.at, self.left = step, call

    def step(self, done: int, values: Mapping[str, float]) -> None:
        self.left -= done == self.at
        if done == self.at and self.left == 0:
            raise Interrupted


def train(
    workspace: Workspace,
    directory: Path | None = None,
    *,
    changed: FitSection | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    module: nn.Module | None = None,
    task: Task | None = None,
) -> tuple[FitResult, nn.Module]:
    module = workspace.fresh_module() if module is None else module
    result = fit(
        module,
        task or workspace.task,
        changed or section(),
        name="stage",
        seed=seed,
        key="key",
        directory=directory,
        progress=progress,
    )
    return result, module


def identical(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def content(directory: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(directory.iterdir())}


def falling(module: nn.Module) -> float:
    """A score that falls with every step: how far batch norm has counted."""
    return -float(next(t for n, t in module.state_dict().items() if n.endswith("num_batches_tracked")))


def last_is_best(task: Task) -> Task:
    """The task with a score that rises with every step."""
    return dataclasses.replace(task, evaluate=lambda module: {"dice": -falling(module)})
