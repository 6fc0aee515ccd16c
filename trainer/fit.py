"""One training run: Lightning Fabric drives it, and every step is a function of (seed, step) alone.

Crops come by number, the augmentation's generator is seeded anew in every step, the learning rate is computed from
the step. So nothing random has to be saved: a run resumed from a checkpoint takes the steps that it would have taken.

What takes part in the steps beside the task comes from outside, as terms of the loss or after the step: see `task`.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader

from edgeslim.errors import TrainingError
from edgeslim.exporter.plan import PruningPlan
from edgeslim.progress import Progress, Silent

from .checkpoint import INDEX, State, copy_state, load_state
from .fit_state import FitState, find_fit, restore_optimizer, restore_state, save_fit
from .optimizer import learning_rate, set_rate
from .ranks import ALONE, Ranks
from .ranks.agree import check_same_weights
from .ranks.batch_norm import shared_statistics
from .ranks.placement import fabric_options, place
from .ranks.share import Draws, share_task
from .recipe import FitSection
from .task import NO_TERMS, AfterStep, Batch, Cutter, Numbers, Step, Task, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """What came out.

    scores: of the weights that were kept.  terms: the last value of each term of the loss.  reused: a finished
    checkpoint was there already.
    """

    step: int
    best_step: int
    scores: Numbers
    terms: Numbers = field(default_factory=dict)
    reused: bool = False


def fit(
    module: nn.Module,
    task: Task,
    section: FitSection,
    *,
    name: str,
    seed: int,
    key: str = "",
    terms: Mapping[str, Term] = NO_TERMS,
    after_step: Sequence[AfterStep] = (),
    plan: PruningPlan | None = None,
    pattern: State | None = None,
    cutter: Cutter | None = None,
    directory: Path | None = None,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> FitResult:
    """Train `module` in place and leave the best weights in it.

    name: the stage, part of every seed.  key: identifies recipe and stage in checkpoints.  terms: by name, added to
    the task's loss.  after_step: called in this order after every step.  plan: what the module was cut by, stored
    beside its weights.  pattern: which single weights stay, stored beside them too; holding it is the caller's.
    cutter: cuts while training goes on; its plan of the moment is stored then, and only weights of its final width
    are the best.  directory: where the checkpoint lives; an unfinished one of the same key is continued, a finished
    one reused.
    ranks: who trains together, each calling this; the first one reads and writes the checkpoint.
    Raises TrainingError on a loss or weight that is not finite, CheckpointError for a checkpoint of another run.
    """
    progress = progress or Silent()
    fabric = _fabric(section, name, progress, ranks)
    task = share_task(task, ranks)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = module.training
    if not training:  # as a pruned net comes, whose batch norms must follow its narrower layers
        module.train()
    saved = ranks.from_first(lambda: find_fit(directory, key, module, pattern, plan))
    state = FitState() if saved is None else restore_state(saved, directory, module, cutter)
    progress.stage(name, section.steps)
    if state.finished:
        _hand_back(module, state, training)
        progress.note(f"{name}: reused the finished checkpoint in {directory}")
        return _result(state, reused=True)
    if state.step:
        progress.note(f"{name}: continued at step {state.step}")
    placed = place(fabric, module, section, ranks)
    optimizer = placed.optimizer
    if saved is not None:
        # After the set-up: its tensors belong where the parameters are now.
        restore_optimizer(saved, directory, placed)
        del saved  # three times the net, for as long as it trains
    calls: list[AfterStep] = [*after_step, *([] if cutter is None else [cutter])]
    for batch in _loader(task, section, state.step, seed, ranks):
        rate = learning_rate(section, state.step)
        set_rate(optimizer, rate)
        torch.manual_seed(_step_seed(seed, name, state.step))
        images, targets = task.prepare(*(tensor.to(fabric.device) for tensor in batch))
        images = images.contiguous(memory_format=torch.channels_last)
        with shared_statistics(ranks):
            logits = placed.net(images)
        step = Step(
            number=state.step,
            rate=rate,
            module=placed.trained,
            images=images,
            targets=targets,
            logits=logits,
            autocast=fabric.autocast,
        )
        parts = {"the loss": task.loss(step.logits, targets), **{label: term(step) for label, term in terms.items()}}
        total = sum(parts.values(), torch.zeros((), device=fabric.device))
        values = ranks.mean({label: float(part.detach()) for label, part in parts.items()})
        if problem := _first_not_finite(values):
            raise TrainingError(*_not_finite(name, state.step, f"{problem} at", directory))
        loss, state.terms = values.pop("the loss"), values
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(total)
        if section.clip_norm is not None:
            fabric.clip_gradients(placed.net, optimizer, max_norm=section.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        for call in calls:
            call(step)
        state.step += 1
        progress.step(state.step, {"loss": loss, **state.terms, **state.scores})
        if state.step % section.evaluate_every == 0 or state.step == section.steps:
            placed.settle()
            check_same_weights(ranks, name, module.state_dict())
            if not all(bool(t.isfinite().all()) for t in module.state_dict().values()):
                raise TrainingError(*_not_finite(name, state.step, "a weight is not finite after", directory))
            state.judge(module, task.evaluate(module), task.score, section, 0 if cutter is None else cutter.last)
            progress.step(state.step, {"loss": loss, **state.terms, **state.scores})
            if directory is not None:
                entries = None if state.finished else placed.entries()
                if ranks.first:
                    save_fit(directory, state, module, entries, key=key, plan=plan, pattern=pattern, cutter=cutter)
            if state.finished:
                break
    _hand_back(module, state, training)
    return _result(state)


def _result(state: FitState, reused: bool = False) -> FitResult:
    return FitResult(
        step=state.step, best_step=state.best_step, scores=state.best_scores, terms=state.terms, reused=reused
    )


def adopt(
    module: nn.Module,
    task: Task,
    *,
    name: str,
    key: str,
    directory: Path,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> FitResult:
    """A stage in which nothing is trained: score the weights that `module` came with, and keep them as its checkpoint.

    Raises CheckpointError for a checkpoint of another run.
    """
    progress = progress or Silent()
    progress.stage(name)
    saved = ranks.from_first(lambda: find_fit(directory, key, module))
    if saved is not None:
        state = restore_state(saved, directory, module)
        load_state(module, state.best)
        return FitResult(step=state.step, best_step=state.best_step, scores=state.best_scores, reused=True)
    check_same_weights(ranks, name, module.state_dict())
    scores = dict(task.evaluate(module))
    best = copy_state(module.state_dict())
    state = FitState(finished=True, best=best, best_scores=scores, scores=scores)
    if ranks.first:
        save_fit(directory, state, module, None, key=key, plan=None)
    return FitResult(step=0, best_step=0, scores=scores)


def _fabric(section: FitSection, name: str, progress: Progress, ranks: Ranks) -> Fabric:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"You passed `Fabric\(accelerator='cpu', precision='16-mixed'")
        fabric = Fabric(precision=section.precision, **fabric_options(ranks))
    if ranks.world > 1:
        fabric.launch()
    used = fabric.strategy.precision.precision
    if used != section.precision:
        progress.note(f"{name}: there is no {section.precision} on this machine, trained in {used}")
    return fabric


def _loader(task: Task, section: FitSection, step: int, seed: int, ranks: Ranks) -> DataLoader[Batch]:
    """This rank's batches from step number `step` to the last."""
    return DataLoader(
        task.draws,
        batch_size=section.batch_size,
        sampler=Draws(ranks, step, section.steps, section.batch_size),
        num_workers=section.workers,
        generator=torch.Generator().manual_seed(seed),
    )


def _step_seed(seed: int, name: str, step: int) -> int:
    """A seed of its own for every stage and step."""
    return zlib.crc32(f"{seed}/{name}/{step}".encode())


def _hand_back(module: nn.Module, state: FitState, training: bool) -> None:
    """The best weights, on the CPU, where what follows a run (tracing, exporting) reads them."""
    load_state(module, state.best)
    module.to("cpu")
    if not training:
        module.eval()


def _first_not_finite(values: Numbers) -> str:
    """Which part of the loss is to blame, and what it is: "l0 is inf"; empty where all is well."""
    wrong = (f"{label} is {value}" for label, value in values.items() if not math.isfinite(value))
    return next(wrong, "" if math.isfinite(sum(values.values())) else "the sum of all terms is not finite")


def _not_finite(name: str, step: int, problem: str, directory: Path | None) -> tuple[str, str]:
    kept = directory if directory is not None and (directory / INDEX).exists() else None
    last = f"the last good checkpoint is {kept}" if kept else "no checkpoint had been written yet"
    return (
        f"{name}: {problem} step {step}; {last}",
        "lower the learning rate or the regularizer's weight, or set clip_norm",
    )
