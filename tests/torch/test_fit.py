"""The training loop: seed and number decide, the best weights are kept, nothing that is not finite is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgeslim.errors import TrainingError
from edgeslim.progress import Silent
from edgeslim.trainer.checkpoint import load_checkpoint
from edgeslim.trainer.recipe import EarlyStop
from edgeslim.trainer.task import Task
from edgeslim.trainer.workspace import Workspace

from .runs import STEPS, identical, section, train

pytestmark = pytest.mark.usefixtures("one_thread")


# --- reproducible ------------------------------------------------------------------------------------------------


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


# --- what is kept ------------------------------------------------------------------------------------------------


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


def test_a_net_in_eval_mode_is_trained_in_train_mode_and_handed_back_as_it_came(workspace: Workspace) -> None:
    """The compact module of a pruned net comes in eval mode: its batch norms must follow all the same."""
    given, usual = workspace.fresh_module().eval(), workspace.fresh_module().train()
    train(workspace, module=given)
    train(workspace, module=usual)
    assert identical(given, usual)
    assert not given.training and usual.training
    tracked = [t for n, t in given.state_dict().items() if n.endswith("num_batches_tracked")]
    assert tracked and all(0 < int(t) <= STEPS for t in tracked)


# --- what goes wrong ---------------------------------------------------------------------------------------------


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
