"""The training half of a run: dense net, sparse net, pruned net.

    dense     train from scratch or from given weights, or take those as they are          stages/dense
    sparse    train on under the regularizers, which push unneeded weights towards zero    stages/sparse
              (a gradual schedule cuts here, and there are no rounds)
    weights-k prune single weights, more in every round, train the others                  stages/weights-k
    weights   the last round; then the filters that have no weight left are cut            stages/weights
    round-k   score, cut, recover                                                          stages/round-k
    final     fine-tune the compact net with the dense net as teacher                      stages/final

This is the default order; `order` in a recipe moves sparse, weights and the rounds. Pruned weights stay zero to the
end. From the first cut on it is the compact module that trains, which is exact and takes a fraction of the time, and
the dense net teaches it. A net that hard-codes its widths trains masked instead, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from edgeslim.progress import Progress

from ..pruned import PrunedModel
from ..ranks.agree import check_same_plan
from ..ranks.sharded import check_recipe
from ..regularizers import check_penalties, schedule
from ..task import NO_TERMS, Numbers
from ..workspace import Workspace, calibration_notes
from .channels import finetune, prune_channels, teacher_of
from .dense import train_dense
from .scoring import check_budget
from .sparse import train_sparse
from .weights import cut_dead_filters, prune_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What the training half leaves behind. scores: stage -> scores on the validation images."""

    dense: nn.Module
    pruned: PrunedModel
    scores: Mapping[str, Numbers]


def train_and_prune(workspace: Workspace, progress: Progress) -> Trained:
    """All training stages. A net with nothing to prune comes back dense, with a note."""
    recipe, ranks = workspace.recipe, workspace.ranks
    check_recipe(recipe, ranks)
    progress.stage("analysis")
    # Before an hour of training: a net that cannot be traced should say so now, and one whose budget
    # is out of reach. The analysis reads no weights.
    pruned = PrunedModel.from_module(workspace.fresh_module(), torch.from_numpy(workspace.calibration(1)))
    pruned.after_cut = lambda plan: check_same_plan(ranks, plan)
    scheduled = [schedule(section) for section in recipe.sparsify.regularizers] if recipe.sparsify is not None else []
    check_penalties(pruned.module, scheduled)
    if recipe.prune is not None and pruned.channels.families:
        check_budget(workspace, recipe.prune, pruned, progress)
    for note in calibration_notes(recipe, workspace.kind.training_images):
        progress.note(note)
    dense, result = train_dense(workspace, progress)
    scores: dict[str, Numbers] = {"dense": result.scores}
    pruned.load_dense_state(dense.state_dict())
    if not pruned.channels.families and recipe.weights is None:
        progress.note(f"nothing to prune: {pruned.coverage.summary}; the dense net is exported")
        return Trained(dense=dense, pruned=pruned, scores=scores)
    teacher, held = teacher_of(workspace, dense), None
    for section in recipe.order:
        terms = teacher if pruned.cut else NO_TERMS
        if section == "sparsify" and recipe.sparsify is not None:
            scores |= train_sparse(workspace, pruned, recipe.sparsify, scheduled, terms, held, progress)
        if section == "weights" and recipe.weights is not None:
            held, found = prune_weights(workspace, pruned, recipe.weights, terms, progress)
            scores |= found
        if section == "prune" and recipe.prune is not None and recipe.gradual is None and pruned.channels.families:
            scores |= prune_channels(workspace, pruned, recipe.prune, teacher, held, progress)
        may_have_killed = section != "sparsify" and getattr(recipe, section) is not None
        if held is not None and may_have_killed and pruned.channels.families:
            held = cut_dead_filters(workspace, pruned, held, progress)
    if not pruned.channels.families:
        progress.note(f"no channel can be pruned: {pruned.coverage.summary}")
        return Trained(dense=dense, pruned=pruned, scores=scores)
    scores |= finetune(workspace, pruned, teacher, held, progress)
    return Trained(dense=dense, pruned=pruned, scores=scores)
