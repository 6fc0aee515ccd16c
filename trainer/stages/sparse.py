"""Sparsity: training under the regularizers, which push unneeded weights towards zero.

Under a gradual schedule channels leave meanwhile, and what comes out has the budget's width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import closing

from edgeslim.progress import Progress

from ..pruned import PrunedModel
from ..recipe import PruneSection, SparsifySection
from ..recipe_gradual import GradualSchedule
from ..regularizers import Scheduled, penalties
from ..schedules import GradualCuts, build_gradual
from ..sparsity.held import HeldPattern
from ..task import Numbers, Term
from ..workspace import Workspace
from .mending import mend, unkept_note
from .scoring import budget_of, reached_by, scoring_of
from .training import form_of, train_form, train_stage

SPARSE = "sparse"


def train_sparse(
    workspace: Workspace,
    net: PrunedModel,
    section: SparsifySection,
    scheduled: Sequence[Scheduled],
    terms: Mapping[str, Term],
    held: HeldPattern | None,
    progress: Progress,
) -> dict[str, Numbers]:
    """Train `net` under the regularizers, and cut it meanwhile where the recipe's schedule is gradual.

    scheduled: the regularizers of `section`.  terms: of the loss beside theirs.  held: the single weights that stay
    pruned. Returns what the stage, and each cut in it, did to the scores.
    """
    prune = workspace.recipe.gradual
    if prune is not None and isinstance(prune.schedule, GradualSchedule) and net.channels.families:
        return _cut_meanwhile(workspace, net, section, scheduled, prune, prune.schedule, progress)
    form = form_of(net, held)
    with penalties(form.module, scheduled, section.fit.steps) as ours:
        return {
            SPARSE: train_form(
                workspace,
                net,
                form,
                section.fit,
                SPARSE,
                progress,
                terms={**terms, **ours.terms},
                after_step=ours.after_step,
            )
        }


def _cut_meanwhile(
    workspace: Workspace,
    net: PrunedModel,
    section: SparsifySection,
    scheduled: Sequence[Scheduled],
    prune: PruneSection,
    schedule: GradualSchedule,
    progress: Progress,
) -> dict[str, Numbers]:
    """Train a copy in dense shapes that is cut on the way; `net` has its weights and its plan then."""
    module, recovery = copy.deepcopy(net.module), prune.recovery
    budget = budget_of(workspace, prune, net, progress)
    with penalties(module, scheduled, section.fit.steps) as ours:
        cuts = GradualCuts(
            net,
            build_gradual(schedule, section.fit.steps),
            scoring_of(workspace, prune),
            budget,
            evaluate=workspace.task.evaluate,
            mend=None if recovery is None else lambda cut, former: mend(workspace, recovery, cut, former),
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
    # Of a stage that was finished before no plan was made now.
    net.reached = budget.reached or reached_by(workspace, prune, net, progress)
    return cuts.scores | {SPARSE: result.scores}
