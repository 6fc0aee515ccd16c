"""A recipe's criterion and budget, with the images that they look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from edgeslim.progress import Progress

from ..budget import Budget, WidthLimits, build_budget
from ..budget.memo import FileMemo
from ..budget.reached import Reached, level_words
from ..criteria import build_criterion
from ..lesson import Lesson
from ..pruned import PrunedModel
from ..ranks.share import share_budget, share_criterion
from ..recipe import PruneSection
from ..recipe_criteria import Calibrated
from ..recipe_target import TargetBudget
from ..schedules import Scoring
from ..workspace import Workspace

_PLANS = "plans.json"
"""In a run's directory: the plans that were measured for it."""
_REHEARSED = "rehearsed-plans.json"
"""And those that were made before training, to see whether there is one."""


def scoring_of(workspace: Workspace, prune: PruneSection) -> Scoring:
    """By what the recipe decides which units go. Gradients are those of the task's loss on the images' own targets."""
    section = prune.criterion
    images = section.images if isinstance(section, Calibrated) else 1
    targets = torch.stack([workspace.task.draws[i][1] for i in range(images)])
    return Scoring(
        criterion=share_criterion(build_criterion(section), workspace.ranks),
        images=workspace.calibration(images),
        lesson=Lesson(loss=workspace.task.loss, targets=targets),
    )


def limits_of(prune: PruneSection) -> WidthLimits:
    """Which widths the recipe allows."""
    return WidthLimits(multiple=prune.width_multiple, minimum=prune.min_width)


def budget_of(workspace: Workspace, prune: PruneSection, net: PrunedModel, progress: Progress) -> Budget:
    """How much may stay of `net`, work counted and timed on a camera's frame. Plans that were timed are remembered."""
    return _budget(workspace, prune, net, progress, _memo(workspace, _PLANS, progress))


def reached_by(workspace: Workspace, prune: PruneSection, net: PrunedModel, progress: Progress) -> Reached | None:
    """What the plan of a net takes that was cut earlier, as it was written down. None where no device was asked."""
    budget = prune.budget
    if not isinstance(budget, TargetBudget):
        return None
    return _memo(workspace, _PLANS, progress).of_cut(
        net.cut, level_words(budget.target, budget.part), workspace.frame_size
    )


def _memo(workspace: Workspace, name: str, progress: Progress) -> FileMemo:
    """The points of a front share their plans with the parent run, as they share its stages."""
    return FileMemo((workspace.parent or workspace).directory / name, progress)


def _budget(workspace: Workspace, prune: PruneSection, net: PrunedModel, progress: Progress, memo: FileMemo) -> Budget:
    shape = (1, workspace.kind.channels, *workspace.frame_size)

    def build() -> Budget:
        return build_budget(prune.budget, limits_of(prune), net.channels, shape, progress=progress, memo=memo)

    # What is counted every rank counts for itself, and all must come to the same; what is timed only one can time.
    return share_budget(build, workspace.ranks) if isinstance(prune.budget, TargetBudget) else build()


def check_budget(workspace: Workspace, prune: PruneSection, net: PrunedModel, progress: Progress) -> None:
    """Raise BudgetError for a budget that no scores could reach, with every channel as good as any other."""
    memo = _memo(workspace, _REHEARSED, progress)
    budget = _budget(workspace, prune, net, _Rehearsal(progress), memo)
    budget.select(net.channels, np.ones(len(net.channels.unit_labels)))


@dataclass(frozen=True, slots=True)
class _Rehearsal:
    """Tells of a plan that is only made to see whether there is one: its figures are not the result's."""

    progress: Progress

    def stage(self, name: str, total: int | None = None) -> None:
        self.progress.stage(name, total)

    def step(self, done: int, values: Mapping[str, float]) -> None:
        self.progress.step(done, values)

    def note(self, text: str) -> None:
        self.progress.note(f"before training, as if all channels were alike: {text}")
