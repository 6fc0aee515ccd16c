"""The training loop: every step is a function of seed and number, so a run that was stopped is a run that was not."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeslim.errors import CheckpointError, TrainingError
from edgeslim.trainer.checkpoint import load_checkpoint
from edgeslim.trainer.distill import dense_teacher
from edgeslim.trainer.fit import FitResult, Task, fit, learning_rate
from edgeslim.trainer.progress import Progress, Silent
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe import DistillSection, EarlyStop, FitSection, Recipe
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.regularizers import L0, kernels
from edgeslim.trainer.workspace import Workspace, open_workspace

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


def tiny_workspace(directory: Path) -> Workspace:
    return open_workspace(recipe(), directory, Silent())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Nets this small lose by sharing their work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return tiny_workspace(tmp_path_factory.mktemp("run"))


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


# --- reproducible and resumable --------------------------------------------------------------------------------


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


def falling(module: nn.Module) -> float:
    """A score that falls with every step: how far batch norm has counted."""
    return -float(next(t for n, t in module.state_dict().items() if n.endswith("num_batches_tracked")))


KILLED = """
import os, pathlib, signal, sys
import torch
from edgeslim.trainer.fit import fit
from edgeslim.trainer.progress import Silent
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


def test_the_seed_decides(workspace: Workspace) -> None:
    first, again, other = (train(workspace, seed=seed)[1] for seed in (0, 0, 1))
    assert identical(first, again)
    assert not identical(first, other)


def test_what_else_draws_random_numbers_does_not_matter(workspace: Workspace) -> None:
    class Drawing(Silent):
        def step(self, done: int, values: Mapping[str, float]) -> None:
            torch.rand(done)

    assert identical(train(workspace)[1], train(workspace, progress=Drawing())[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 on, in a process with threads
def test_workers_change_nothing(workspace: Workspace) -> None:
    alone, helped = (train(workspace, changed=section(steps=4, workers=n))[1] for n in (0, 2))
    assert identical(alone, helped)


def test_mixed_precision_trains_float32_weights(workspace: Workspace) -> None:
    changed = section(precision="bf16-mixed")
    first, again = (train(workspace, changed=changed)[1] for _ in range(2))
    assert identical(first, again)
    assert not identical(first, train(workspace)[1])
    assert {p.dtype for p in first.parameters()} == {torch.float32}


def test_a_precision_that_is_not_to_be_had_is_said(workspace: Workspace) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has 16-bit mixed precision")
    progress = Silent()
    _, seen = train(workspace, changed=section(precision="16-mixed"), progress=progress)
    assert progress.notes == ["stage: there is no 16-mixed on this machine, trained in bf16-mixed"]
    assert identical(seen, train(workspace, changed=section(precision="bf16-mixed"))[1])


# --- what is kept ----------------------------------------------------------------------------------------------


def scripted(task: Task, scores: list[float]) -> tuple[Task, list[dict[str, Tensor]]]:
    """A task with these scores, one an evaluation, and the weights that each of them saw."""
    seen: list[dict[str, Tensor]] = []

    def evaluate(module: nn.Module) -> Mapping[str, float]:
        seen.append({name: t.detach().clone() for name, t in module.state_dict().items()})
        return {"dice": scores[len(seen) - 1], "number": float(len(seen))}

    return dataclasses.replace(task, evaluate=evaluate), seen


@pytest.mark.parametrize(
    ("scores", "stop", "stopped", "best"),
    [
        ([0.1, 0.5, 0.4, 0.3, 0.9, 0.9, 0.9], EarlyStop(patience=2), 4, 2),
        ([0.1, 0.5, 0.4, 0.6, 0.3, 0.2, 0.1], EarlyStop(patience=2), 6, 4),
        ([0.5, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9], EarlyStop(patience=3), 4, 1),
        ([0.1, 0.15, 0.19, 0.3, 0.31, 0.32, 0.33], EarlyStop(patience=2, min_delta=0.1), 3, 1),
        ([0.1, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0], None, 7, 2),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], EarlyStop(patience=1), 7, 7),
        ([-3.0, -2.0, -2.5, -2.6, 0.0, 0.0, 0.0], EarlyStop(patience=2), 4, 2),
    ],
)
def test_early_stopping_keeps_the_best_weights(
    workspace: Workspace, tmp_path: Path, scores: list[float], stop: EarlyStop | None, stopped: int, best: int
) -> None:
    task, seen = scripted(workspace.task, scores)
    changed = section(steps=7, evaluate_every=1, early_stop=stop)
    result, module = train(workspace, tmp_path / "run", changed=changed, task=task)
    assert (result.step, result.best_step) == (stopped, best)
    assert result.scores == {"dice": scores[best - 1], "number": float(best)}
    assert all(torch.equal(t, seen[best - 1][name]) for name, t in module.state_dict().items())
    saved = load_checkpoint(tmp_path / "run")
    assert saved.finished and set(saved.parts) == {"model"}
    assert all(torch.equal(t, seen[best - 1][name]) for name, t in saved.model.items())


def test_the_last_step_is_evaluated_whatever_its_number(workspace: Workspace) -> None:
    task, seen = scripted(workspace.task, [0.1, 0.2])
    result, _ = train(workspace, changed=section(steps=5, evaluate_every=4), task=task)
    assert len(seen) == 2 and result.best_step == 5


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


def test_a_net_in_eval_mode_is_trained_in_train_mode_and_handed_back_as_it_came(workspace: Workspace) -> None:
    """The compact module of a pruned net comes in eval mode: its batch norms must follow all the same."""
    given, usual = workspace.fresh_module().eval(), workspace.fresh_module().train()
    train(workspace, module=given)
    train(workspace, module=usual)
    assert identical(given, usual)
    assert not given.training and usual.training
    tracked = [t for n, t in given.state_dict().items() if n.endswith("num_batches_tracked")]
    assert tracked and all(0 < int(t) <= STEPS for t in tracked)


# --- what goes wrong -------------------------------------------------------------------------------------------


def failing_at(task: Task, step: int, fault: Callable[[Tensor, Tensor], Tensor]) -> Task:
    """The task with `fault(loss, logits)` as its loss in one step, counted from 0."""
    taken = []

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        taken.append(None)
        value = task.loss(logits, masks)
        return fault(value, logits) if len(taken) == step + 1 else value

    return dataclasses.replace(task, loss=loss)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops(workspace: Workspace, tmp_path: Path, value: float) -> None:
    task = failing_at(workspace.task, 7, lambda loss, logits: loss * value)
    with pytest.raises(TrainingError) as caught:
        train(workspace, tmp_path / "run", task=task)
    assert caught.value.message == (
        f"stage: the loss is {value} at step 7; the last good checkpoint is {tmp_path / 'run'}"
    )
    assert "learning rate" in caught.value.hint
    saved = load_checkpoint(tmp_path / "run")
    assert (saved.step, saved.finished) == (6, False)
    assert all(bool(t.isfinite().all()) for part in saved.parts.values() for t in part.values())
    assert identical(train(workspace, tmp_path / "run")[1], train(workspace)[1])  # and it is good indeed


def test_without_a_checkpoint_the_message_says_so(workspace: Workspace, tmp_path: Path) -> None:
    for directory in (None, tmp_path / "run"):
        with pytest.raises(TrainingError, match="at step 1; no checkpoint had been written yet"):
            train(workspace, directory, task=failing_at(workspace.task, 1, lambda loss, logits: loss * math.nan))
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_finite_never_reach_a_checkpoint(workspace: Workspace, tmp_path: Path) -> None:
    """A finite loss can have a gradient that is not: sqrt at zero."""
    task = failing_at(workspace.task, 5, lambda loss, logits: loss + (0 * logits).abs().sum().sqrt())
    with pytest.raises(TrainingError, match="a weight is not finite after step 6; the last good checkpoint is"):
        train(workspace, tmp_path / "run", task=task)
    saved = load_checkpoint(tmp_path / "run")
    assert saved.step == 3
    assert all(bool(t.isfinite().all()) for part in saved.parts.values() for t in part.values())


def test_a_learning_rate_out_of_all_proportion(workspace: Workspace, tmp_path: Path) -> None:
    changed = section(lr=1e30, optimizer="sgd", clip_norm=None, warmup_steps=0)
    with pytest.raises(TrainingError, match=r"stage: .* step \d+; no checkpoint had been written yet"):
        train(workspace, tmp_path / "run", changed=changed)


# --- the rate --------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(0, 40), st.floats(1e-6, 10.0))
def test_the_learning_rate_rises_in_a_line_and_falls_in_a_cosine(steps: int, warmup: int, lr: float) -> None:
    rule = FitSection(steps=steps, warmup_steps=warmup, lr=lr)
    rates = [learning_rate(rule, t) for t in range(steps)]
    assert all(0.0 < rate <= lr * (1 + 1e-12) for rate in rates)
    for t, rate in enumerate(rates):
        if t < warmup:
            assert rate == pytest.approx(lr * (t + 1) / (warmup + 1))
        else:
            assert rate == pytest.approx(lr * (1 + math.cos(math.pi * (t - warmup) / (steps - warmup))) / 2)
    if warmup < steps:
        assert rates[warmup] == lr
        assert learning_rate(rule, steps) == pytest.approx(0.0, abs=1e-12 * lr)


@pytest.mark.parametrize("warmup", [0, 3])
def test_the_optimiser_takes_that_rate(workspace: Workspace, warmup: int) -> None:
    """Adam's first step moves every weight by the rate itself."""
    module = workspace.fresh_module()
    before = copy.deepcopy(module)
    changed = section(steps=1, lr=1e-3, warmup_steps=warmup, optimizer="adam", clip_norm=None)
    train(workspace, changed=changed, module=module)
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(module.parameters(), before.parameters()))
    assert moved == pytest.approx(1e-3 / (warmup + 1), rel=1e-3)


# --- penalties, teacher, masks ---------------------------------------------------------------------------------


def last_is_best(task: Task) -> Task:
    """The task with a score that rises with every step."""
    return dataclasses.replace(task, evaluate=lambda module: {"dice": -falling(module)})


def test_penalties_shrink_the_kernels_and_nothing_else(workspace: Workspace) -> None:
    sizes, others, task = [], [], last_is_best(workspace.task)
    for penalties in ((), (L0(alpha=1e-3, beta=5.0, l2=1e-3),)):
        module = workspace.fresh_module()
        changed = section(lr=1e-2)
        fit(module, task, changed, name="stage", seed=0, penalties=penalties)
        watched = {id(k) for k in kernels(module)}
        sizes.append(sum(float(k.detach().abs().sum()) for k in kernels(module)))
        others.append(sum(float(p.detach().abs().sum()) for p in module.parameters() if id(p) not in watched))
    assert sizes[1] < 0.8 * sizes[0]
    assert others[1] > 0.8 * others[0]


def test_a_teacher_pulls_the_student_and_stays_as_it_is(workspace: Workspace) -> None:
    torch.manual_seed(1)
    master = workspace.fresh_module()
    for parameter in master.parameters():
        nn.init.normal_(parameter, std=0.5)
    untouched = copy.deepcopy(master)
    images = torch.stack([workspace.task.draws[i][0] for i in range(4)])
    images, _ = workspace.task.prepare(images, torch.zeros(4, 32, 32, dtype=torch.long))
    distance = []
    for weight in (0.0, 10.0):
        teacher = dense_teacher(master.train(), DistillSection(weight=weight, temperature=2.0), ignore_index=255)
        student = workspace.fresh_module()
        changed = section(lr=1e-2, steps=30, evaluate_every=30)
        fit(student, last_is_best(workspace.task), changed, name="stage", seed=0, teacher=teacher)
        with torch.no_grad():
            answers = [net.eval()(images).softmax(1) for net in (student, master)]
        distance.append(float((answers[0] - answers[1]).abs().mean()))
    assert distance[1] < 0.8 * distance[0]
    assert identical(master, untouched)
    assert not master.training
    assert all(p.grad is None for p in master.parameters())


def test_masks_hold_through_training_and_the_plan_is_kept(workspace: Workspace, tmp_path: Path) -> None:
    net = PrunedModel.from_module(workspace.fresh_module(), torch.randn(1, 3, 32, 32))
    net.apply_cut([unit.label for family in net.channels.families for unit in family.units[::2]])
    masked = [(name, axis) for name, axes in net.plan.initializers.items() for axis in axes if axis.masked]
    assert len(masked) > 10
    calls = []

    def silent(state: Mapping[str, Tensor]) -> bool:
        return all(
            not state[name].index_select(axis.axis, torch.tensor(axis.cut)).any()
            and bool(state[name].index_select(axis.axis, torch.tensor(axis.keep)).any())
            for name, axis in masked
        )

    class Watching(Silent):
        def step(self, done: int, values: Mapping[str, float]) -> None:
            assert len(calls) == done
            assert silent(net.module.state_dict())

    def hold() -> None:
        calls.append(None)
        net.hold_masks()

    changed = section(lr=1e-2, weight_decay=1e-2, optimizer="sgd")
    fit(
        net.module,
        workspace.task,
        changed,
        name="stage",
        seed=0,
        plan=net.plan,
        after_step=hold,
        directory=tmp_path / "run",
        progress=Watching(),
    )
    assert len(calls) == STEPS
    assert silent(net.module.state_dict())
    saved = load_checkpoint(tmp_path / "run")
    assert saved.plan == net.plan
    assert silent(saved.model)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, STEPS - 1), st.sampled_from([1, 2, 5, 7]))
def test_any_step_may_be_the_last_before_an_interruption(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, step: int, every: int
) -> None:
    directory, changed = tmp_path_factory.mktemp("any") / "run", section(evaluate_every=every)
    with pytest.raises(Interrupted):
        train(workspace, directory, changed=changed, progress=StopAt(step))
    assert identical(train(workspace, directory, changed=changed)[1], train(workspace, changed=changed)[1])
