"""A recipe's criterion and budget, with the images that they look at."""

from __future__ import annotations

import numpy as np
import torch

from ..budget import Budget, WidthLimits, build_budget
from ..criteria import build_criterion
from ..lesson import Lesson
from ..pruned import PrunedModel
from ..recipe_criteria import Calibrated
from ..schedules import Scoring
from ..workspace import Workspace


def scoring_of(workspace: Workspace) -> Scoring:
    """By what the recipe decides which units go. Gradients are those of the task's loss on the images' own targets."""
    section = workspace.recipe.prune.criterion
    images = section.images if isinstance(section, Calibrated) else 1
    targets = torch.stack([workspace.task.draws[i][1] for i in range(images)])
    return Scoring(
        criterion=build_criterion(section),
        images=workspace.calibration(images),
        lesson=Lesson(loss=workspace.task.loss, targets=targets),
    )


def limits_of(workspace: Workspace) -> WidthLimits:
    """Which widths the recipe allows."""
    section = workspace.recipe.prune
    return WidthLimits(multiple=section.width_multiple, minimum=section.min_width)


def budget_of(workspace: Workspace, net: PrunedModel) -> Budget:
    """How much may stay of `net`, work counted on a camera's frame."""
    shape = (1, workspace.kind.channels, *workspace.frame_size)
    return build_budget(workspace.recipe.prune.budget, limits_of(workspace), net.channels, shape)


def check_budget(workspace: Workspace, net: PrunedModel) -> None:
    """Raise BudgetError for a budget that no scores could reach, with every channel as good as any other."""
    budget_of(workspace, net).select(net.channels, np.ones(len(net.channels.unit_labels)))
