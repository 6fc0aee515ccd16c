"""Single weights: chosen, pruned, held at zero from here to the end; filters that lost all of theirs are cut."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from edgeslim.progress import Progress

from ..budget import WidthLimits
from ..pruned import PrunedModel
from ..recipe import IterativeSchedule, WeightsSection
from ..schedules import Iterative
from ..sparsity import apply_pattern
from ..sparsity.dead import cut_dead
from ..sparsity.held import STAGE, HeldPattern, choose_pattern
from ..task import Numbers, Term
from ..workspace import Workspace
from .scoring import limits_of
from .training import form_of, train_form

_FOUR = 4
"""Only a layer whose input channels divide by it can be two of four."""


def prune_weights(
    workspace: Workspace, net: PrunedModel, section: WeightsSection, terms: Mapping[str, Term], progress: Progress
) -> tuple[HeldPattern, dict[str, Numbers]]:
    """Choose, hold and train, round by round. Returns the last pattern, and what every round scored.

    terms: of the loss in these trainings.
    """
    schedule = section.schedule or IterativeSchedule(rounds=1)
    rounds = Iterative(rounds=schedule.rounds, law=schedule.law, power=schedule.power)
    scores = dict[str, Numbers]()
    for number in range(1, schedule.rounds + 1):
        last = number == schedule.rounds
        stage, fit_section = (STAGE, section.finetune) if last else (f"{STAGE}-{number}", schedule.between)
        form = form_of(net)
        held = _choose(workspace, net, form.module, section, progress, stage, rounds.share(number))
        # What is told of a kernel is told where it is chosen, once.
        pattern = replace(held.on(net, form.module), notes=held.pattern.notes)
        form = replace(form, pattern=pattern)
        apply_pattern(form.module, pattern)
        scores[f"{stage}, just pruned"] = workspace.task.evaluate(form.module)
        if fit_section is not None:
            scores[stage] = train_form(workspace, net, form, fit_section, stage, progress, terms=terms)
    return held, scores


def cut_dead_filters(workspace: Workspace, net: PrunedModel, held: HeldPattern, progress: Progress) -> HeldPattern:
    """Cut the filters without a weight, and let the pattern follow where their constants went."""
    prune = workspace.recipe.prune  # without it nobody has said which widths are worth having
    limits = None if prune is None else limits_of(prune)
    if held.method == "2:4":
        multiple, minimum = (1, 1) if limits is None else (limits.multiple, limits.minimum)
        limits = WidthLimits(multiple=math.lcm(multiple, _FOUR), minimum=max(minimum, _FOUR))
    for note in cut_dead(net, workspace.calibration(2), limits).notes:
        progress.note(note)
    return held.admitting(net.module)


def _choose(
    workspace: Workspace,
    net: PrunedModel,
    module: nn.Module,
    section: WeightsSection,
    progress: Progress,
    stage: str,
    share: float,
) -> HeldPattern:
    """The first rank's choice, for all."""
    return workspace.ranks.from_first(lambda: choose_pattern(workspace, net, module, section, progress, stage, share))
