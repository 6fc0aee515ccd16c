"""Sparsity: training under the regularizers, which push unneeded weights towards zero.

Under a gradual schedule channels leave meanwhile, and what comes out has the budget's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from torch import nn

from ..progress import Progress
from ..pruned import PrunedModel
from ..recipe import SparsifySection
from ..recipe_gradual import GradualSchedule
from ..regularizers import Scheduled, penalties
from ..schedules import GradualCuts, build_gradual
from ..task import Numbers
from ..workspace import Workspace
from .mending import mend, unkept_note
from .scoring import budget_of, scoring_of
from .training import train_stage

SPARSE = "sparse"


def train_sparse(
    workspace: Workspace,
    net: PrunedModel,
    module: nn.Module,
    section: SparsifySection,
    scheduled: Sequence[Scheduled],
    progress: Progress,
) -> dict[str, Numbers]:
    """Train `module` in place, and let `net` have its weights, and its plan where the schedule is gradual.

    scheduled: the regularizers of `section`. Returns what the stage, and each cut in it, did to the scores.
    """
    schedule = workspace.recipe.prune.schedule
    with penalties(module, scheduled, section.fit.steps) as ours:
        if not isinstance(schedule, GradualSchedule) or not net.channels.families:
            result = train_stage(
                workspace, module, section.fit, SPARSE, progress, terms=ours.terms, after_step=ours.after_step
            )
            net.load_dense_state(module.state_dict())
            return {SPARSE: result.scores}
        cuts = GradualCuts(
            net,
            build_gradual(schedule, section.fit.steps),
            scoring_of(workspace),
            budget_of(workspace, net),
            evaluate=workspace.task.evaluate,
            mend=None if workspace.recipe.prune.recovery is None else lambda n, former: mend(workspace, n, former),
        )
        with closing(cuts):
            result = train_stage(
                workspace,
                module,
                section.fit,
                SPARSE,
                progress,
                terms=ours.terms,
                after_step=ours.after_step,
                cutter=cuts,
            )
    cuts.check(module, result.best_step)
    for cut, method in cuts.unkept:
        progress.note(unkept_note(cut, method))
    net.load_dense_state(module.state_dict())
    return cuts.scores | {SPARSE: result.scores}
