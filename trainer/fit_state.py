"""Where a training run stands, on its way into a checkpoint and back.

    model        the best weights so far; all there is once the run has finished. Of a net that is still being cut
                 the newest ones: a score at more width says nothing
    current      the weights of the last evaluated step
    optimizer    its tensors as <parameter's index>.<entry>
    pattern      which single weights stay, where some were pruned
    cuts         what a `Cutter` remembers, where one is at work; its plan is the checkpoint's

The numbers say how far the run is, what the best and the present weights scored, and what each term of the loss was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeslim.errors import CheckpointError, first_line
from edgeslim.exporter.plan import PruningPlan

from .checkpoint import INDEX, Checkpoint, State, check_fit, copy_state, load_checkpoint, load_state, save_checkpoint
from .ranks.opening import broken_connection
from .ranks.placement import Placed
from .recipe import FitSection
from .task import Cutter, Numbers


@dataclass(kw_only=True)
class FitState:
    """Where a run stands; everything a checkpoint must hold beside the optimiser and the present weights.

    step: steps taken.  best_step, best, best_scores: when the score was highest, the state_dict and the scores then.
    stale: evaluations since.  scores: of the last evaluation.  terms: the terms of the last step's loss.
    finished: there is no step left to take.
    """

    step: int = 0
    best_step: int = 0
    stale: int = 0
    finished: bool = False
    best: dict[str, Tensor] = field(default_factory=dict)
    best_scores: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    terms: dict[str, float] = field(default_factory=dict)

    def judge(self, module: nn.Module, scores: Numbers, score: str, section: FitSection, since: int = 0) -> None:
        """Take in what the present weights scored: keep the best ones, and decide whether to go on.

        score: the entry of `scores` that counts, higher = better.  since: the step from which on it does; up to there
        the newest weights are kept, and nothing stops early.
        """
        self.scores = dict(scores)
        margin = section.early_stop.min_delta if section.early_stop else 0.0
        if not self.best or self.best_step < since or self.scores[score] > self.best_scores[score] + margin:
            self.best_scores, self.best_step, self.stale = self.scores, self.step, 0
            self.best = copy_state(module.state_dict())
        else:
            self.stale += 1
        patience = section.early_stop.patience if section.early_stop else math.inf
        self.finished = self.step >= section.steps or self.stale >= patience


def save_fit(
    path: Path,
    state: FitState,
    module: nn.Module,
    entries: Mapping[int, Mapping[str, Tensor]] | None,
    *,
    key: str,
    plan: PruningPlan | None,
    pattern: State | None = None,
    cutter: Cutter | None = None,
) -> None:
    """Write a run's checkpoint. Raises TrainingError if the disk does not take it.

    entries: the optimiser's tensors, parameter's index -> name -> tensor; a finished checkpoint has none.
    """
    parts: dict[str, Mapping[str, Tensor]] = {"model": state.best}
    if pattern is not None:
        parts["pattern"] = pattern
    if not state.finished and entries is not None:
        parts["current"] = module.state_dict()
        parts["optimizer"] = {f"{index}.{name}": t for index, own in entries.items() for name, t in own.items()}
    numbers: dict[str, float] = {"best_step": state.best_step, "stale": state.stale}
    numbers |= {f"best.{name}": value for name, value in state.best_scores.items()}
    numbers |= {f"now.{name}": value for name, value in state.scores.items()}
    numbers |= {f"term.{name}": value for name, value in state.terms.items()}
    if cutter is not None:
        plan, (parts["cuts"], cuts) = cutter.plan, cutter.memory()
        numbers |= {f"cuts.{name}": value for name, value in cuts.items()}
    save_checkpoint(
        path, Checkpoint(key=key, step=state.step, finished=state.finished, parts=parts, numbers=numbers, plan=plan)
    )


def find_fit(
    path: Path | None, key: str, module: nn.Module, pattern: State | None = None, plan: PruningPlan | None = None
) -> Checkpoint | None:
    """The checkpoint of this run, or None where there is none. Raises CheckpointError for that of another.

    pattern: which single weights stay.  plan: what the module was cut by, where that is not the run's own doing. A run
    that prunes others is another: scores that are nearly equal may fall otherwise on another machine.
    """
    if path is None or not (path.is_file() or (path / INDEX).exists()):  # a file is none of ours: loading refuses it
        return None
    saved = load_checkpoint(path)
    check_fit(saved, path, key, module)
    kept, wanted = saved.parts.get("pattern", {}), pattern or {}
    if kept.keys() != wanted.keys() or not all(torch.equal(kept[n], wanted[n].cpu()) for n in kept):
        raise CheckpointError(f"{path} prunes other weights than this run", "give another --out, or --fresh")
    if plan is not None and saved.plan != plan:
        raise CheckpointError(f"{path} was cut to other channels than this run", "give another --out, or --fresh")
    return saved


def restore_state(saved: Checkpoint, path: Path | None, module: nn.Module, cutter: Cutter | None = None) -> FitState:
    """Where the run stood; its weights of then go into `module`, unless it has finished, its cuts into `cutter`."""
    state = FitState()
    with _whole(path):
        state.step, state.finished, state.best = saved.step, saved.finished, dict(saved.model)
        state.best_step, state.stale = int(saved.numbers["best_step"]), int(saved.numbers["stale"])
        for prefix, scores in (("best.", state.best_scores), ("now.", state.scores), ("term.", state.terms)):
            scores.update((n.removeprefix(prefix), v) for n, v in saved.numbers.items() if n.startswith(prefix))
        if not saved.finished:
            load_state(module, saved.parts["current"])
        if cutter is not None:
            cuts = {n.removeprefix("cuts."): v for n, v in saved.numbers.items() if n.startswith("cuts.")}
            cutter.recall(module, saved.plan, saved.parts["cuts"], cuts)
    return state


def restore_optimizer(saved: Checkpoint, path: Path | None, placed: Placed) -> None:
    """Put the saved tensors into an optimiser that was set up for the same parameters."""
    entries: dict[int, dict[str, Any]] = {}
    with _whole(path):
        for name, tensor in saved.parts["optimizer"].items():
            index, _, entry = name.partition(".")
            entries.setdefault(int(index), {})[entry] = tensor
        placed.restore_entries(entries)


@contextmanager
def _whole(path: Path | None) -> Iterator[None]:
    """Entries that are missing or senseless: the hashes hold, so somebody has edited the checkpoint's index."""
    try:
        yield
    except (KeyError, ValueError, OverflowError, RuntimeError) as error:
        if broken_connection(error):  # what is restored, ranks compare or share out: another one may die over it
            raise
        raise CheckpointError(
            f"{path} is incomplete: {first_line(error)}", "give another --out, or --fresh to start over"
        ) from error
