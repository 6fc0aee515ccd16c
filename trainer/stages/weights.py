"""Single weights: chosen, pruned, held at zero from here to the end; filters that lost all of theirs are cut."""

from __future__ import annotations

from torch import nn

from ..progress import Progress
from ..pruned import PrunedModel
from ..recipe import IterativeSchedule, WeightsSection
from ..schedules import Iterative
from ..sparsity import apply_pattern
from ..sparsity.dead import cut_dead
from ..sparsity.held import STAGE, HeldPattern, choose_pattern
from ..task import Numbers
from ..workspace import Workspace
from .scoring import limits_of
from .training import train_stage


def prune_weights(
    workspace: Workspace, module: nn.Module, section: WeightsSection, progress: Progress
) -> tuple[HeldPattern, dict[str, Numbers]]:
    """Choose, hold and train, round by round, in place. Returns the last pattern, and what every round scored."""
    schedule = section.schedule or IterativeSchedule(rounds=1)
    rounds = Iterative(rounds=schedule.rounds, law=schedule.law, power=schedule.power)
    scores = dict[str, Numbers]()
    for number in range(1, schedule.rounds + 1):
        last = number == schedule.rounds
        stage, fit_section = (STAGE, section.finetune) if last else (f"{STAGE}-{number}", schedule.between)
        held = _choose(workspace, module, section, progress, stage, rounds.share(number))
        apply_pattern(module, held.pattern)
        scores[f"{stage}, just pruned"] = workspace.task.evaluate(module)
        if fit_section is not None:
            scores[stage] = train_stage(workspace, module, fit_section, stage, progress, pattern=held.pattern).scores
    return held, scores


def cut_dead_filters(workspace: Workspace, net: PrunedModel, held: HeldPattern, progress: Progress) -> HeldPattern:
    """Cut the filters without a weight, and let the pattern follow where their constants went."""
    prune = workspace.recipe.prune  # without it nobody has said which widths are worth having
    limits = None if prune is None else limits_of(prune)
    for note in cut_dead(net, workspace.calibration(2), limits).notes:
        progress.note(note)
    return held.admitting(net.module)


def _choose(
    workspace: Workspace, module: nn.Module, section: WeightsSection, progress: Progress, stage: str, share: float
) -> HeldPattern:
    """The first rank's choice, for all."""
    return workspace.ranks.from_first(lambda: choose_pattern(workspace, module, section, progress, stage, share))
