"""The training half of a run: dense net, sparse net, pruned net.

    dense     train from scratch or from given weights, or take those as they are          stages/dense
    sparse    train on under the regularizers, which push unneeded weights towards zero    stages/sparse
    weights-k prune single weights, more in every round, train the others                  stages/weights-k
    weights   the last round; then the filters that have no weight left are cut            stages/weights
    round-k   score, cut, recover                                                          stages/round-k
    final     fine-tune the compact net with the dense net as teacher                      stages/final

From then on pruned weights stay zero to the end. From the first cut on it is the compact module that trains, which is
exact and takes a fraction of the time. A net that hard-codes its widths trains masked instead, and that is said.
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
from .criteria import build_criterion
from .distill import teacher_term
from .fit import FitResult, adopt, fit
from .lesson import Lesson
from .progress import Progress
from .pruned import PrunedModel
from .recipe import FitSection, IterativeSchedule, OneShotSchedule, PruneSection, WeightsSection
from .recipe_criteria import Calibrated
from .recovery import image_batches
from .regularizers import check_penalties, penalties, schedule
from .schedules import Iterative, build_schedule
from .sparsity import Pattern, apply_pattern, holding
from .sparsity.dead import cut_dead
from .sparsity.held import STAGE, HeldPattern, choose_pattern
from .task import NO_TERMS, AfterStep, Term
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
    scheduled = [schedule(section) for section in recipe.sparsify.regularizers] if recipe.sparsify is not None else []
    check_penalties(pruned.module, scheduled)
    dense, result = train_dense(workspace, progress)
    scores = {"dense": result.scores}
    pruned.load_dense_state(dense.state_dict())
    if not pruned.channels.families and recipe.weights is None:
        progress.note(f"nothing to prune: {pruned.coverage.summary}; the dense net is exported")
        return Trained(dense=dense, pruned=pruned, scores=scores)
    module = copy.deepcopy(dense)
    if recipe.sparsify is not None:
        section = recipe.sparsify.fit
        with penalties(module, scheduled, section.steps) as ours:
            result = _train(
                workspace, module, section, "sparse", progress, terms=ours.terms, after_step=ours.after_step
            )
        scores["sparse"] = result.scores
        pruned.load_dense_state(module.state_dict())
    held = None
    if recipe.weights is not None:
        held, found = _prune_weights(workspace, module, recipe.weights, progress)
        scores |= found
        pruned.load_dense_state(module.state_dict())
        if not pruned.channels.families:
            progress.note(f"no channel can be pruned: {pruned.coverage.summary}")
            return Trained(dense=dense, pruned=pruned, scores=scores)
        held = _cut_dead(workspace, pruned, held, progress)
    distill, terms = recipe.finetune.distill, dict[str, Term]()
    if distill is not None:
        terms["teacher"] = teacher_term(copy.deepcopy(dense), distill, workspace.task.ignore_index)
    if recipe.prune is not None:
        scores |= _prune(workspace, pruned, recipe.prune, terms, held, progress)
        if held is not None:
            held = _cut_dead(workspace, pruned, held, progress)
    scores["final"] = _recover(workspace, pruned, recipe.finetune.fit, "final", terms, held, progress)
    return Trained(dense=dense, pruned=pruned, scores=scores)


def _prune_weights(
    workspace: Workspace, module: nn.Module, section: WeightsSection, progress: Progress
) -> tuple[HeldPattern, dict[str, Mapping[str, float]]]:
    """Choose, hold and train, round by round, in place; the last pattern, and the scores of every round."""
    schedule = section.schedule or IterativeSchedule(steps=1)
    rounds = Iterative(rounds=schedule.steps, law=schedule.law, power=schedule.power)
    scores = dict[str, Mapping[str, float]]()
    for number in range(1, schedule.steps + 1):
        last = number == schedule.steps
        stage, fit_section = (STAGE, section.finetune) if last else (f"{STAGE}-{number}", schedule.between)
        held = choose_pattern(workspace, module, section, progress, stage, rounds.share(number))
        apply_pattern(module, held.pattern)
        scores[f"{stage}, just pruned"] = workspace.task.evaluate(module)
        if fit_section is not None:
            scores[stage] = _train(workspace, module, fit_section, stage, progress, pattern=held.pattern).scores
    return held, scores


def _cut_dead(workspace: Workspace, pruned: PrunedModel, held: HeldPattern, progress: Progress) -> HeldPattern:
    """Cut the filters without a weight, and let the pattern follow where their constants went."""
    section = workspace.recipe.prune  # without it nobody has said which widths are worth having
    limits = None if section is None else WidthLimits(multiple=section.width_multiple, minimum=section.min_width)
    for note in cut_dead(pruned, workspace.calibration(2), limits).notes:
        progress.note(note)
    return held.admitting(pruned.module)


def _prune(
    workspace: Workspace,
    pruned: PrunedModel,
    section: PruneSection,
    terms: Mapping[str, Term],
    held: HeldPattern | None,
    progress: Progress,
) -> dict[str, Mapping[str, float]]:
    """Cut channels down to the budget, with a short recovery between the cuts; the scores on the way."""
    scores = dict[str, Mapping[str, float]]()
    former = pruned.graph

    def mend(net: PrunedModel, name: str) -> None:
        """Make up for the last cut, and write down what it did to the scores."""
        scores[f"{name}, just cut"] = workspace.task.evaluate(net.module)
        if section.recovery is None:
            return
        if held is not None:
            progress.note(f"{name}: not mended, for recovery would fill the places of pruned weights")
            return
        frames = workspace.calibration(section.recovery.images)
        for gain in net.recover(former, image_batches(former, frames), section.recovery.methods).gains:
            if not gain.kept:
                progress.note(
                    f"{name}: {gain.method} was not kept, for the outputs did not come nearer to the dense net's"
                )
        scores[f"{name}, mended"] = workspace.task.evaluate(net.module)

    def recover(net: PrunedModel, number: int) -> None:
        nonlocal former
        mend(net, f"round-{number}")
        between = None if isinstance(section.schedule, OneShotSchedule) else section.schedule.between
        if between is not None:
            name = f"round-{number}"
            scores[name] = _recover(workspace, net, between, name, terms, held, progress)
        former = net.graph

    progress.stage("pruning")
    images = section.criterion.images if isinstance(section.criterion, Calibrated) else 1
    targets = torch.stack([workspace.task.draws[i][1] for i in range(images)])
    limits = WidthLimits(multiple=section.width_multiple, minimum=section.min_width)
    build_schedule(section.schedule).prune(
        pruned,
        build_criterion(section.criterion),
        build_budget(section.budget, limits, pruned.channels, (1, workspace.kind.channels, *workspace.frame_size)),
        workspace.calibration(images),
        recover=recover,
        lesson=Lesson(loss=workspace.task.loss, targets=targets),
    )
    mend(pruned, "pruned")
    return scores


def _recover(
    workspace: Workspace,
    net: PrunedModel,
    section: FitSection,
    name: str,
    terms: Mapping[str, Term],
    held: HeldPattern | None,
    progress: Progress,
) -> Mapping[str, float]:
    """Train the compact net, or the masked one where the class cannot be shrunk."""
    after_step: list[AfterStep] = []
    pattern = None
    try:
        module = net.compact()
        pattern = None if held is None else held.on_compact(net)
    except UnsupportedGraphError as error:
        progress.note(f"{name} trains masked: {error.message}")
        module, after_step = net.module, [lambda _: net.hold_masks()]
        pattern = None if held is None else held.on_masked(net)
    result = _train(
        workspace,
        module,
        section,
        name,
        progress,
        terms=terms,
        after_step=after_step,
        plan=net.plan,
        pattern=pattern,
    )
    return result.scores


def _train(
    workspace: Workspace,
    module: nn.Module,
    section: FitSection,
    stage: str,
    progress: Progress,
    *,
    terms: Mapping[str, Term] = NO_TERMS,
    after_step: Sequence[AfterStep] = (),
    plan: PruningPlan | None = None,
    pattern: Pattern | None = None,
) -> FitResult:
    """One training stage of the run: its name gives its seed, its key and the place of its checkpoint.

    pattern: which single weights stay, held through every step.
    """
    own = Pattern(keep={}) if pattern is None else pattern
    for note in own.notes:
        progress.note(f"{stage}: {note}")
    apply_pattern(module, own)
    with holding(module, own) as hold:
        return fit(
            module,
            workspace.task,
            section,
            name=stage,
            seed=workspace.recipe.seed,
            key=workspace.key(stage),
            terms=terms,
            after_step=[*after_step, lambda _: hold()],
            plan=plan,
            pattern=None if pattern is None else pattern.keep,
            directory=workspace.stage(stage),
            progress=progress,
        )
