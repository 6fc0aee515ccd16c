"""Channels: cut in rounds, made up for, trained between; then the compact net is fine-tuned by its teacher.

round-k   score, cut, mend, recover
final     fine-tune with the dense net as teacher
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

from torch import nn

from edgeslim.errors import InvariantError
from edgeslim.progress import Progress

from ..distill import on_mixtures, teacher_term
from ..pruned import PrunedModel
from ..recipe import OneShotSchedule, PruneSection
from ..recipe_gradual import GradualSchedule
from ..schedules import build_schedule
from ..sparsity.held import HeldPattern
from ..task import Numbers, Term
from ..workspace import Workspace
from .mending import gain_note, mend
from .scoring import budget_of, scoring_of
from .training import train_pruned


def teacher_of(workspace: Workspace, dense: nn.Module) -> Mapping[str, Term]:
    """The term of a recipe's teacher, none where it wants none."""
    distill = workspace.recipe.finetune.distill
    if distill is None:
        return {}
    ignored = workspace.task.ignore_index
    return {"teacher": teacher_term(copy.deepcopy(dense), distill, ignored, workspace.ranks.total)}


def prune_channels(
    workspace: Workspace,
    net: PrunedModel,
    section: PruneSection,
    terms: Mapping[str, Term],
    held: HeldPattern | None,
    progress: Progress,
) -> dict[str, Numbers]:
    """Cut `net` down to the recipe's budget in the recipe's rounds. Returns what each did to the scores.

    terms: of the loss in the trainings between.  held: the single weights that stay pruned; there nothing is mended.
    """
    schedule, scores = section.schedule, dict[str, Numbers]()
    if isinstance(schedule, GradualSchedule):
        raise InvariantError("a gradual schedule cuts in the stage sparse")
    between = None if isinstance(schedule, OneShotSchedule) else schedule.between
    former = net.graph

    def after_cut(name: str) -> None:
        scores[f"{name}, just cut"] = workspace.task.evaluate(net.module)
        if section.recovery is None:
            return
        if held is not None:
            progress.note(f"{name}: not mended, for recovery would fill the places of pruned weights")
            return
        now = scores[f"{name}, just cut"]
        for gain in mend(workspace, section.recovery, net, former):
            before, now = now, workspace.task.evaluate(net.module) if gain.kept else now
            progress.note(gain_note(name, gain, workspace.task.score, before, now))
        scores[f"{name}, mended"] = now

    def recover(_: PrunedModel, number: int) -> None:
        nonlocal former
        name = f"round-{number}"
        after_cut(name)
        if between is not None:
            scores[name] = train_pruned(workspace, net, between, name, progress, terms=terms, held=held)
        former = net.graph

    progress.stage("pruning")
    budget = budget_of(workspace, section, net, progress)
    build_schedule(schedule).prune(net, scoring_of(workspace, section), budget, recover)
    net.reached = budget.reached
    after_cut("pruned")
    return scores


def finetune(
    workspace: Workspace,
    net: PrunedModel,
    terms: Mapping[str, Term],
    held: HeldPattern | None,
    progress: Progress,
) -> dict[str, Numbers]:
    """The last optimisation."""
    section = workspace.recipe.finetune
    if section.distill is not None and section.distill.mixed:
        workspace = dataclasses.replace(workspace, task=on_mixtures(workspace.task))
    return {"final": train_pruned(workspace, net, section.fit, "final", progress, terms=terms, held=held)}
