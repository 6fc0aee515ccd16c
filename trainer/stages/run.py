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

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from edgeslim.progress import Progress

from ..pruned import PrunedModel
from ..ranks.agree import check_same_plan
from ..ranks.sharded import check_recipe
from ..recipe import Recipe, SectionName
from ..recipe_target import TargetBudget
from ..regularizers import Scheduled, check_penalties, schedule
from ..sparsity.held import HeldPattern
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A run up to the first stage that depends on how much is to be pruned: what runs with other budgets share.

    held: the single weights that stay pruned, None where none were.  left: the recipe's sections that come now.
    """

    dense: nn.Module
    pruned: PrunedModel
    scores: Mapping[str, Numbers]
    held: HeldPattern | None
    left: tuple[SectionName, ...]

    def again(self) -> Begun:
        """The same with weights of its own: what one run does to them, another does not see."""
        return replace(self, pruned=copy.deepcopy(self.pruned))


def train_and_prune(workspace: Workspace, progress: Progress) -> Trained:
    """All training stages. A net with nothing to prune comes back dense, with a note, if it meets a target as it is."""
    pruned = analyze_net(workspace, progress)
    prune = workspace.recipe.prune
    if prune is not None and (pruned.channels.families or isinstance(prune.budget, TargetBudget)):
        check_budget(workspace, prune, pruned, progress)
    return train_rest(workspace, train_shared(workspace, pruned, progress), progress)


def analyze_net(workspace: Workspace, progress: Progress) -> PrunedModel:
    """The untrained net with its analysis, and everything checked that can be wrong before an hour of training.

    A net that cannot be traced should say so now. The analysis reads no weights.
    """
    recipe, ranks = workspace.recipe, workspace.ranks
    check_recipe(recipe, ranks)
    progress.stage("analysis")
    pruned = PrunedModel.from_module(workspace.fresh_module(), torch.from_numpy(workspace.calibration(1)))
    pruned.after_cut = lambda plan: check_same_plan(ranks, plan)
    check_penalties(pruned.module, _scheduled(recipe))
    for note in calibration_notes(recipe, workspace.kind.training_images):
        progress.note(note)
    return pruned


def train_shared(workspace: Workspace, pruned: PrunedModel, progress: Progress) -> Begun:
    """The stages before the first cut that a budget decides: dense always, others by the recipe's order.

    pruned: from `analyze_net`.
    """
    recipe = workspace.recipe
    dense, result = train_dense(workspace, progress)
    pruned.load_dense_state(dense.state_dict())
    first = recipe.order.index("prune" if recipe.gradual is None else "sparsify")
    begun = Begun(dense=dense, pruned=pruned, scores={"dense": result.scores}, held=None, left=recipe.order)
    return _train_sections(workspace, begun, recipe.order[:first], progress)


def train_rest(workspace: Workspace, begun: Begun, progress: Progress) -> Trained:
    """The stages that are left, by the workspace's recipe; the net in `begun` is cut and trained."""
    recipe, pruned = workspace.recipe, begun.pruned
    if not pruned.channels.families and recipe.weights is None:
        progress.note(f"nothing to prune: {pruned.coverage.summary}; the dense net is exported")
        return Trained(dense=begun.dense, pruned=pruned, scores=begun.scores)
    done = _train_sections(workspace, begun, begun.left, progress)
    scores = dict(done.scores)
    if not pruned.channels.families:
        progress.note(f"no channel can be pruned: {pruned.coverage.summary}")
    else:
        scores |= finetune(workspace, pruned, teacher_of(workspace, done.dense), done.held, progress)
    return Trained(dense=done.dense, pruned=pruned, scores=scores)


def _scheduled(recipe: Recipe) -> list[Scheduled]:
    return [] if recipe.sparsify is None else [schedule(section) for section in recipe.sparsify.regularizers]


def _train_sections(workspace: Workspace, begun: Begun, sections: Sequence[SectionName], progress: Progress) -> Begun:
    """What is begun with these sections done, the next that are left."""
    recipe, pruned, held = workspace.recipe, begun.pruned, begun.held
    if not pruned.channels.families and recipe.weights is None:
        return begun
    teacher, scores = teacher_of(workspace, begun.dense), dict(begun.scores)
    for section in sections:
        terms = teacher if pruned.cut else NO_TERMS
        if section == "sparsify" and recipe.sparsify is not None:
            scores |= train_sparse(workspace, pruned, recipe.sparsify, _scheduled(recipe), terms, held, progress)
        if section == "weights" and recipe.weights is not None:
            held, found = prune_weights(workspace, pruned, recipe.weights, terms, progress)
            scores |= found
        if section == "prune" and recipe.prune is not None and recipe.gradual is None and pruned.channels.families:
            scores |= prune_channels(workspace, pruned, recipe.prune, teacher, held, progress)
        may_have_killed = section != "sparsify" and getattr(recipe, section) is not None
        if held is not None and may_have_killed and pruned.channels.families:
            held = cut_dead_filters(workspace, pruned, held, progress)
    left = begun.left[len(sections) :]
    return Begun(dense=begun.dense, pruned=pruned, scores=scores, held=held, left=left)
