"""The training half of a run: dense net, sparse net, pruned net.

    dense     train from scratch or from given weights, or take those as they are          stages/dense
    sparse    train on under the regularizers, which push unneeded weights towards zero    stages/sparse
    round-k   score, cut, recover                                                          stages/round-k
    final     fine-tune the compact net with the dense net as teacher                      stages/final

From the first cut on it is the compact module that trains, which is exact and takes a fraction of the time. A net
that hard-codes its widths trains masked instead, and that is said.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from edgeslim.errors import UnsupportedGraphError
from edgeslim.exporter.plan import PruningPlan

from .budget import WidthLimits, build_budget
from .criteria import criterion
from .distill import teacher_term
from .fit import FitResult, adopt, fit
from .progress import Progress
from .pruned import PrunedModel
from .recipe import FitSection, LnNormCriterion
from .regularizers import build_regularizer, penalty_term
from .schedules import prune_iteratively
from .task import AfterStep, Term
from .workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What the training half leaves behind. scores: stage -> scores on the validation images."""

    dense: nn.Module
    pruned: PrunedModel
    scores: Mapping[str, Mapping[str, float]]


def train_dense(workspace: Workspace, progress: Progress) -> tuple[nn.Module, FitResult]:
    """Train the recipe's net, or reuse the finished checkpoint of the same key; `train: null` takes it as it came."""
    module, section = workspace.fresh_module(), workspace.recipe.train
    if section is not None:
        return module, _train(workspace, module, section, "dense", progress)
    progress.note(
        "dense: the given weights are used as they are; if they were trained on the validation images too, their "
        "scores there are too high, while those on the test images are not affected"
    )
    key, directory = workspace.key("dense"), workspace.stage("dense")
    return module, adopt(module, workspace.task, name="dense", key=key, directory=directory, progress=progress)


def train_and_prune(workspace: Workspace, progress: Progress) -> Trained:
    """All training stages. A net with nothing to prune comes back dense, with a note."""
    recipe = workspace.recipe
    progress.stage("analysis")
    # Before an hour of training: a net that cannot be traced should say so now. The analysis reads no weights.
    pruned = PrunedModel.from_module(workspace.fresh_module(), torch.from_numpy(workspace.calibration(1)))
    dense, result = train_dense(workspace, progress)
    scores = {"dense": result.scores}
    pruned.load_dense_state(dense.state_dict())
    if not pruned.channels.families:
        progress.note(f"nothing to prune: {pruned.coverage.summary}; the dense net is exported")
        return Trained(dense=dense, pruned=pruned, scores=scores)
    if recipe.sparsify is not None:
        sparse = copy.deepcopy(dense)
        penalties = [penalty_term(build_regularizer(section)) for section in recipe.sparsify.regularizers]
        scores["sparse"] = _train(workspace, sparse, recipe.sparsify.fit, "sparse", progress, terms=penalties).scores
        pruned.load_dense_state(sparse.state_dict())
    scores |= _prune(workspace, pruned, dense, progress)
    return Trained(dense=dense, pruned=pruned, scores=scores)


def _prune(
    workspace: Workspace, pruned: PrunedModel, dense: nn.Module, progress: Progress
) -> dict[str, Mapping[str, float]]:
    recipe = workspace.recipe
    section, scores = recipe.prune, dict[str, Mapping[str, float]]()
    distill = recipe.finetune.distill
    terms = [] if distill is None else [teacher_term(copy.deepcopy(dense), distill, workspace.task.ignore_index)]

    def recover(net: PrunedModel, number: int) -> None:
        scores[f"round-{number}, just cut"] = workspace.task.evaluate(net.module)
        if section.schedule.between is not None:
            name = f"round-{number}"
            scores[name] = _recover(workspace, net, section.schedule.between, name, terms, progress)

    progress.stage("pruning")
    images = section.criterion.images if isinstance(section.criterion, LnNormCriterion) else 1
    limits = WidthLimits(multiple=section.width_multiple, minimum=section.min_width)
    prune_iteratively(
        pruned,
        criterion(section.criterion.name),
        build_budget(section.budget, limits, pruned.channels, (1, workspace.kind.channels, *workspace.frame_size)),
        workspace.calibration(images),
        rounds=section.schedule.steps,
        recover=recover,
    )
    scores["pruned, just cut"] = workspace.task.evaluate(pruned.module)
    scores["final"] = _recover(workspace, pruned, recipe.finetune.fit, "final", terms, progress)
    return scores


def _recover(
    workspace: Workspace,
    net: PrunedModel,
    section: FitSection,
    name: str,
    terms: Sequence[Term],
    progress: Progress,
) -> Mapping[str, float]:
    """Train the compact net, or the masked one where the class cannot be shrunk."""
    after_step: list[AfterStep] = []
    try:
        module = net.compact()
    except UnsupportedGraphError as error:
        progress.note(f"{name} trains masked: {error.message}")
        module, after_step = net.module, [lambda _: net.hold_masks()]
    return _train(workspace, module, section, name, progress, terms=terms, after_step=after_step, plan=net.plan).scores


def _train(
    workspace: Workspace,
    module: nn.Module,
    section: FitSection,
    stage: str,
    progress: Progress,
    *,
    terms: Sequence[Term] = (),
    after_step: Sequence[AfterStep] = (),
    plan: PruningPlan | None = None,
) -> FitResult:
    """One training stage of the run: its name gives its seed, its key and the place of its checkpoint."""
    return fit(
        module,
        workspace.task,
        section,
        name=stage,
        seed=workspace.recipe.seed,
        key=workspace.key(stage),
        terms=terms,
        after_step=after_step,
        plan=plan,
        directory=workspace.stage(stage),
        progress=progress,
    )
