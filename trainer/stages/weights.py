"""Single weights: chosen, pruned, held at zero from here to the end; filters that lost all of theirs are cut."""

from __future__ import annotations

from torch import nn

from ..progress import Progress
from ..pruned import PrunedModel
from ..recipe import WeightsSection
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
    """Prune single weights of `module` and fine-tune the others, in place. Returns the pattern, and what it scored."""
    held = choose_pattern(workspace, module, section, progress)
    apply_pattern(module, held.pattern)
    scores = {f"{STAGE}, just pruned": workspace.task.evaluate(module)}
    result = train_stage(workspace, module, section.finetune, STAGE, progress, pattern=held.pattern)
    return held, scores | {STAGE: result.scores}


def cut_dead_filters(workspace: Workspace, net: PrunedModel, held: HeldPattern, progress: Progress) -> HeldPattern:
    """Cut the filters without a weight, and let the pattern follow where their constants went."""
    for note in cut_dead(net, workspace.calibration(2), limits_of(workspace)).notes:
        progress.note(note)
    return held.admitting(net.module)
