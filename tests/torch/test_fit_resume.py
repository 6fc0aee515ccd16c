"""A run that was stopped is a run that was not: every step is a function of seed and number."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import edgeslim
from edgeslim.errors import CheckpointError
from edgeslim.progress import Silent
from edgeslim.trainer.checkpoint import Checkpoint, load_checkpoint
from edgeslim.trainer.criteria.random import Random
from edgeslim.trainer.fit import FitResult, fit
from edgeslim.trainer.fit_state import restore_state
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe import EarlyStop
from edgeslim.trainer.task import Task
from edgeslim.trainer.workspace import Workspace

from .runs import EVERY, STEPS, Interrupted, StopAt, content, falling, identical, recipe, section, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize(("step", "call"), [(4, 1), (5, 1), (6, 2), (11, 1)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    workspace: Workspace, tmp_path: Path, optimizer: str, step: int, call: int
) -> None:
    changed = section(optimizer=optimizer, weight_decay=1e-3, lr=1e-2)
    wanted, whole = train(workspace, tmp_path / "whole", changed=changed)
    with pytest.raises(Interrupted):
        train(workspace, tmp_path / "stopped", changed=changed, progress=StopAt(step, call))
    saved = load_checkpoint(tmp_path / "stopped")
    assert saved.step == (step - 1) // EVERY * EVERY and not saved.finished
    progress = Silent()
    seen, resumed = train(workspace, tmp_path / "stopped", changed=changed, progress=progress)
    assert progress.notes == [f"stage: continued at step {saved.step}"]
    assert seen == wanted
    assert identical(resumed, whole)
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_a_run_stopped_again_and_again_arrives_at_the_same_place(workspace: Workspace, tmp_path: Path) -> None:
    wanted, whole = train(workspace)
    for step in (2, 4, 7, 10):
        with pytest.raises(Interrupted):
            train(workspace, tmp_path / "run", progress=StopAt(step))
    seen, resumed = train(workspace, tmp_path / "run")
    assert seen == wanted
    assert identical(resumed, whole)


def test_patience_is_counted_across_an_interruption(workspace: Workspace, tmp_path: Path) -> None:
    changed = section(steps=30, early_stop=EarlyStop(patience=2))

    def task() -> Task:
        return dataclasses.replace(workspace.task, evaluate=lambda module: {"dice": falling(module)})

    wanted, _ = train(workspace, changed=changed, task=task())
    assert (wanted.step, wanted.best_step) == (3 * EVERY, EVERY)
    with pytest.raises(Interrupted):
        train(workspace, tmp_path / "run", changed=changed, task=task(), progress=StopAt(2 * EVERY + 1))
    assert train(workspace, tmp_path / "run", changed=changed, task=task())[0] == wanted


@settings(max_examples=8, deadline=None)
@given(st.integers(1, STEPS - 1), st.sampled_from([1, 2, 5, 7]))
def test_any_step_may_be_the_last_before_an_interruption(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, step: int, every: int
) -> None:
    directory, changed = tmp_path_factory.mktemp("any") / "run", section(evaluate_every=every)
    with pytest.raises(Interrupted):
        train(workspace, directory, changed=changed, progress=StopAt(step))
    assert identical(train(workspace, directory, changed=changed)[1], train(workspace, changed=changed)[1])


KILLED = """
import os, pathlib, signal, sys
import torch
from edgeslim.trainer.fit import fit
from edgeslim.progress import Silent
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.workspace import open_workspace

torch.set_num_threads(1)

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

class Killed(Silent):
    def step(self, done, values):
        if sys.argv[1] == "between steps" and done == 8:
            kill()

write = pathlib.Path.write_bytes
def torn(path, data):
    if sys.argv[1] == "while writing" and path.name == "optimizer.safetensors" and seen.append(path) is None:
        if len(seen) == 3:
            write(path, data[: len(data) // 2])
            kill()
    return write(path, data)

seen = []
pathlib.Path.write_bytes = torn
recipe = parse_recipe(__import__("json").loads(sys.argv[2]))
workspace = open_workspace(recipe, pathlib.Path("."), Silent())
fit(workspace.fresh_module(), workspace.task, recipe.train, name="stage", seed=0, key="key",
    directory=pathlib.Path("run"), progress=Killed())
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["between steps", "while writing"])
def test_a_killed_process_continues(workspace: Workspace, tmp_path: Path, when: str) -> None:
    command = [sys.executable, "-c", KILLED, when, recipe().model_dump_json()]
    child = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode == -9, child.stderr
    assert load_checkpoint(tmp_path / "run").step == 6
    wanted, whole = train(workspace)
    seen, resumed = train(workspace, tmp_path / "run")
    assert seen == wanted
    assert identical(resumed, whole)


def test_a_finished_checkpoint_is_reused(workspace: Workspace, tmp_path: Path) -> None:
    wanted, whole = train(workspace, tmp_path / "run")
    before = content(tmp_path / "run")

    def never(logits: Tensor, masks: Tensor) -> Tensor:
        raise AssertionError("a step was taken")

    progress = Silent()
    task = dataclasses.replace(workspace.task, loss=never)
    seen, reused = train(workspace, tmp_path / "run", task=task, progress=progress)
    assert seen == dataclasses.replace(wanted, reused=True)
    assert identical(reused, whole)
    assert content(tmp_path / "run") == before
    assert progress.notes == [f"stage: reused the finished checkpoint in {tmp_path / 'run'}"]


def test_a_checkpoint_of_another_run(workspace: Workspace, tmp_path: Path) -> None:
    train(workspace, tmp_path / "run", changed=section(steps=1))
    before = content(tmp_path / "run")
    with pytest.raises(CheckpointError, match="belongs to another run: its key is key, this run's is other") as caught:
        fit(
            workspace.fresh_module(),
            workspace.task,
            section(),
            name="stage",
            seed=0,
            key="other",
            directory=tmp_path / "run",
        )
    assert "--fresh" in caught.value.hint
    from edgeslim.trainer.models.unet import UNet

    for net, name in ((UNet(width=5, depth=1), "down.0.0.weight"), (UNet(width=4, depth=2), "down.1.0.weight")):
        with pytest.raises(CheckpointError, match=f"{name} does not fit this model"):
            train(workspace, tmp_path / "run", module=net)
    assert content(tmp_path / "run") == before


def test_a_checkpoint_of_other_channels(workspace: Workspace, tmp_path: Path) -> None:
    """As wide as this run's, so that its weights would fit."""
    example = torch.from_numpy(workspace.calibration(1))
    first, second = (
        edgeslim.prune(workspace.fresh_module(), example, ratio=0.5, criterion=Random(seed=s)) for s in (0, 1)
    )
    assert first.plan != second.plan

    def run(net: PrunedModel) -> FitResult:
        return fit(
            net.compact(),
            workspace.task,
            section(steps=1),
            name="stage",
            seed=0,
            key="key",
            plan=net.plan,
            directory=tmp_path / "run",
        )

    run(first)
    before = content(tmp_path / "run")
    assert run(first).reused
    with pytest.raises(CheckpointError, match="was cut to other channels than this run") as caught:
        run(second)
    assert "--fresh" in caught.value.hint and content(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda index: index["numbers"].pop("best_step"), "best_step"),
        (lambda index: index["numbers"].update(stale=1e999), "Infinity is no JSON number"),
        (lambda index: index["files"].pop("current.safetensors"), "current"),
        (lambda index: index["files"].pop("optimizer.safetensors"), "optimizer"),
    ],
)
def test_a_checkpoint_whose_index_was_edited(
    workspace: Workspace, tmp_path: Path, edit: Callable[[dict[str, Any]], object], said: str
) -> None:
    with pytest.raises(Interrupted):
        train(workspace, tmp_path / "run", progress=StopAt(4, 1))
    path = tmp_path / "run" / "checkpoint.json"
    index = json.loads(path.read_text())
    edit(index)
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=said) as caught:
        train(workspace, tmp_path / "run")
    assert "--fresh" in caught.value.hint or "train again" in caught.value.hint


@pytest.mark.parametrize(
    ("said", "raised"),
    [
        ("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1", RuntimeError),
        ("a tensor of another size", CheckpointError),
    ],
)
def test_another_process_that_dies_meanwhile_is_no_fault_of_the_checkpoint(said: str, raised: type[Exception]) -> None:
    """Ranks compare the plan of a cutter that is restored; who says --fresh then throws a good run away."""

    class Comparing:
        def recall(self, *given: object) -> None:
            raise RuntimeError(said)

    parts: dict[str, dict[str, Tensor]] = {"model": {}, "cuts": {}}
    saved = Checkpoint(key="", step=1, finished=True, parts=parts, numbers={"best_step": 0, "stale": 0})
    with pytest.raises(raised, match=said.split()[-1] if raised is CheckpointError else "Connection closed"):
        restore_state(saved, None, nn.Identity(), Comparing())  # type: ignore[arg-type]
