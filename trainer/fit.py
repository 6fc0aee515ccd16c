"""One optimisation run: Lightning Fabric drives it, and every step is a function of (seed, step) alone.

Crops come by number, the augmentation's generator is seeded anew in every step, the learning rate is computed from
the step. So nothing random has to be saved: a run resumed from a checkpoint takes the steps that it would have taken.

    lr(t) = lr * (t + 1) / (warmup + 1)                           for t < warmup
    lr(t) = lr * (1 + cos(pi * (t - warmup) / (T - warmup))) / 2  afterwards
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from edgeslim.errors import CheckpointError, TrainingError, first_line
from edgeslim.exporter.plan import PruningPlan

from .checkpoint import INDEX, Checkpoint, check_fit, load_checkpoint, load_state, save_checkpoint
from .progress import Progress, Silent
from .recipe import FitSection
from .regularizers import Regularizer, kernels

Batch = tuple[Tensor, Tensor]
Numbers = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is learnt, from what, and how success is measured.

    draws: draw number -> (image (3, h, w) uint8, mask (h, w) int64), without end.
    prepare: that batch, on the device -> (normalised images float32, masks), randomly augmented.
    loss: (logits, masks) -> scalar. evaluate: module -> scores on the validation images.
    score: the entry of `evaluate` that early stopping and the choice of the best weights go by, higher = better.
    """

    draws: Dataset[Batch]
    prepare: Callable[[Tensor, Tensor], Batch]
    loss: Callable[[Tensor, Tensor], Tensor]
    evaluate: Callable[[nn.Module], Numbers]
    score: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A trained net to imitate. loss: (student logits, teacher logits, masks) -> scalar."""

    module: nn.Module
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(kw_only=True)
class FitState:
    """Where a run stands; everything a checkpoint must hold beside the tensors."""

    step: int = 0
    best_step: int = 0
    stale: int = 0
    finished: bool = False
    best: dict[str, Tensor] = field(default_factory=dict)
    best_scores: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """What came out. scores: of the weights that were kept. reused: a finished checkpoint was there already."""

    step: int
    best_step: int
    scores: Numbers
    reused: bool = False


def fit(
    module: nn.Module,
    task: Task,
    section: FitSection,
    *,
    name: str,
    seed: int,
    key: str = "",
    penalties: Sequence[Regularizer] = (),
    teacher: Teacher | None = None,
    plan: PruningPlan | None = None,
    after_step: Callable[[], None] | None = None,
    directory: Path | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Train `module` in place and leave the best weights in it.

    name: the stage, part of every seed.  key: identifies recipe and stage in checkpoints.  penalties: added to the
    task loss over the module's kernels.  plan: what the module was cut by, stored beside
    its weights.  after_step: called after every optimiser step (to hold masks).
    directory: where the checkpoint lives; an unfinished one of the same key is continued, a finished one reused.
    Raises TrainingError on a loss that is not finite, CheckpointError for a checkpoint of another run.
    """
    progress = progress or Silent()
    fabric = _fabric(section, name, progress)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = module.training
    if not training:  # as a pruned net comes, whose batch norms must follow its narrower layers
        module.train()
    optimizer = _optimizer(module, section)
    state, saved = FitState(), None
    if directory is not None and (directory.is_file() or (directory / INDEX).exists()):  # a file is refused
        saved = load_checkpoint(directory)
        check_fit(saved, directory, key, module)
        _restore(saved, directory, module, state)
    progress.stage(name, section.steps)
    if state.finished:
        _hand_back(module, state, training)
        progress.note(f"{name}: reused the finished checkpoint in {directory}")
        return FitResult(step=state.step, best_step=state.best_step, scores=state.best_scores, reused=True)
    if state.step:
        progress.note(f"{name}: continued at step {state.step}")
    wrapped, optimizer = fabric.setup(module, optimizer)
    if saved is not None:
        # After the set-up: its tensors belong where the parameters are now.
        _restore_optimizer(saved, directory, optimizer)
    if teacher is not None:
        teacher.module.eval().to(fabric.device)
    loader = _loader(task, section, state.step, seed)
    watched = kernels(module)
    for images, masks in loader:
        _set_rate(optimizer, section, state.step)
        torch.manual_seed(_step_seed(seed, name, state.step))
        images, masks = task.prepare(images.to(fabric.device), masks.to(fabric.device))
        images = images.contiguous(memory_format=torch.channels_last)
        logits = wrapped(images)
        loss = task.loss(logits, masks)
        if teacher is not None:
            with torch.no_grad(), fabric.autocast():
                wanted = teacher.module(images)
            loss = loss + teacher.loss(logits, wanted, masks)
        total = loss + sum(p.penalty(watched) for p in penalties)
        value = float(total.detach())
        if not math.isfinite(value):
            raise TrainingError(*_not_finite(name, state.step, f"the loss is {value} at", directory))
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(total)
        if section.clip_norm is not None:
            fabric.clip_gradients(wrapped, optimizer, max_norm=section.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        if after_step is not None:
            after_step()
        state.step += 1
        progress.step(state.step, {"loss": float(loss.detach()), **state.scores})
        if state.step % section.evaluate_every == 0 or state.step == section.steps:
            if not all(bool(t.isfinite().all()) for t in module.state_dict().values()):
                raise TrainingError(*_not_finite(name, state.step, "a weight is not finite after", directory))
            _evaluate(module, task, section, state)
            progress.step(state.step, {"loss": float(loss.detach()), **state.scores})
            if directory is not None:
                _save(directory, key, module, optimizer, state, plan)
            if state.finished:
                break
    _hand_back(module, state, training)
    return FitResult(step=state.step, best_step=state.best_step, scores=state.best_scores)


def learning_rate(section: FitSection, step: int) -> float:
    """The rate of a step (0-based); see the module docstring."""
    if step < section.warmup_steps:
        return section.lr * (step + 1) / (section.warmup_steps + 1)
    along = (step - section.warmup_steps) / max(section.steps - section.warmup_steps, 1)
    return section.lr * 0.5 * (1.0 + math.cos(math.pi * along))


def _fabric(section: FitSection, name: str, progress: Progress) -> Fabric:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"You passed `Fabric\(accelerator='cpu', precision='16-mixed'")
        fabric = Fabric(accelerator="auto", devices=1, precision=section.precision)
    used = fabric.strategy.precision.precision
    if used != section.precision:
        progress.note(f"{name}: there is no {section.precision} on this machine, trained in {used}")
    return fabric


def _optimizer(module: nn.Module, section: FitSection) -> torch.optim.Optimizer:
    parameters = [p for p in module.parameters() if p.requires_grad]
    if section.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=section.lr, momentum=0.9, nesterov=True, weight_decay=section.weight_decay
        )
    kind = torch.optim.Adam if section.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=section.lr, weight_decay=section.weight_decay)


def _loader(task: Task, section: FitSection, step: int, seed: int) -> DataLoader[Batch]:
    draws = range(step * section.batch_size, section.steps * section.batch_size)
    return DataLoader(
        task.draws,
        batch_size=section.batch_size,
        sampler=draws,
        num_workers=section.workers,
        generator=torch.Generator().manual_seed(seed),
    )


def _set_rate(optimizer: torch.optim.Optimizer, section: FitSection, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(section, step)


def _step_seed(seed: int, name: str, step: int) -> int:
    """A seed of its own for every stage and step."""
    return zlib.crc32(f"{seed}/{name}/{step}".encode())


def _evaluate(module: nn.Module, task: Task, section: FitSection, state: FitState) -> None:
    """Score the present weights, remember the best, and decide whether to go on."""
    state.scores = dict(task.evaluate(module))
    score = state.scores[task.score]
    margin = section.early_stop.min_delta if section.early_stop else 0.0
    if not state.best or score > state.best_scores[task.score] + margin:
        state.best_scores, state.best_step, state.stale = state.scores, state.step, 0
        state.best = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    else:
        state.stale += 1
    patience = section.early_stop.patience if section.early_stop else math.inf
    state.finished = state.step >= section.steps or state.stale >= patience


def _save(
    path: Path,
    key: str,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: FitState,
    plan: PruningPlan | None,
) -> None:
    parts: dict[str, Mapping[str, Tensor]] = {"model": state.best}
    if not state.finished:
        parts["current"] = module.state_dict()
        parts["optimizer"] = {
            f"{index}.{name}": torch.as_tensor(value)
            for index, entries in optimizer.state_dict()["state"].items()
            for name, value in entries.items()
            if value is not None
        }
    numbers: dict[str, float] = {"best_step": state.best_step, "stale": state.stale}
    numbers |= {f"best.{name}": value for name, value in state.best_scores.items()}
    numbers |= {f"now.{name}": value for name, value in state.scores.items()}
    save_checkpoint(
        path, Checkpoint(key=key, step=state.step, finished=state.finished, parts=parts, numbers=numbers, plan=plan)
    )


def _restore(saved: Checkpoint, path: Path | None, module: nn.Module, state: FitState) -> None:
    with _whole(path):
        state.step, state.finished, state.best = saved.step, saved.finished, dict(saved.model)
        state.best_step, state.stale = int(saved.numbers["best_step"]), int(saved.numbers["stale"])
        for prefix, scores in (("best.", state.best_scores), ("now.", state.scores)):
            scores.update((n.removeprefix(prefix), v) for n, v in saved.numbers.items() if n.startswith(prefix))
        if not saved.finished:
            load_state(module, saved.parts["current"])


def _restore_optimizer(saved: Checkpoint, path: Path | None, optimizer: torch.optim.Optimizer) -> None:
    entries: dict[int, dict[str, Any]] = {}
    with _whole(path):
        for name, tensor in saved.parts["optimizer"].items():
            index, _, entry = name.partition(".")
            entries.setdefault(int(index), {})[entry] = tensor
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})


@contextmanager
def _whole(path: Path | None) -> Iterator[None]:
    """Entries that are missing or senseless: the hashes hold, so somebody has edited the checkpoint's index."""
    try:
        yield
    except (KeyError, ValueError, OverflowError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is incomplete: {first_line(error)}", "give another --out, or --fresh to start over"
        ) from error


def _hand_back(module: nn.Module, state: FitState, training: bool) -> None:
    """The best weights, on the CPU, where what follows a run (tracing, exporting) reads them."""
    load_state(module, state.best)
    module.to("cpu")
    if not training:
        module.eval()


def _not_finite(name: str, step: int, problem: str, directory: Path | None) -> tuple[str, str]:
    kept = directory if directory is not None and (directory / INDEX).exists() else None
    last = f"the last good checkpoint is {kept}" if kept else "no checkpoint had been written yet"
    return (
        f"{name}: {problem} step {step}; {last}",
        "lower the learning rate or the regulariser's weight, or set clip_norm",
    )
