"""What every training stage shares: its name gives its seed, its key and the place of its checkpoint.

A net that has been cut trains compact, which is exact and takes a fraction of the time. A class that hard-codes its
widths trains masked instead, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from edgeslim.errors import UnsupportedGraphError
from edgeslim.exporter.plan import PruningPlan
from edgeslim.progress import Progress

from ..fit import FitResult, fit
from ..pruned import PrunedModel
from ..ranks.sharded import check_masked
from ..recipe import FitSection
from ..sparsity import Pattern, apply_pattern, holding
from ..sparsity.held import HeldPattern
from ..task import NO_TERMS, AfterStep, Cutter, Numbers, Term
from ..workspace import Workspace


def train_stage(
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
    cutter: Cutter | None = None,
) -> FitResult:
    """Train `module` in place as one stage of the run, or take over what its checkpoint has.

    pattern: which single weights stay, held through every step.  cutter: cuts channels while it trains.
    Raises as `fit`.
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
            cutter=cutter,
            directory=workspace.stage(stage),
            progress=progress,
            ranks=workspace.ranks,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The module that is trained for a net, and the single weights that stay in it.

    masked: why the net trains masked though it has been cut; "" where it does not.
    """

    module: nn.Module
    pattern: Pattern | None = None
    masked: str = ""


def form_of(net: PrunedModel, held: HeldPattern | None = None) -> Form:
    """The compact module of a net that has been cut, or the masked one where the class cannot be shrunk."""
    module, masked = net.module, ""
    if net.cut:
        try:
            module = net.compact()
        except UnsupportedGraphError as error:
            masked = error.message
    return Form(module=module, pattern=None if held is None else held.on(net, module), masked=masked)


def train_form(
    workspace: Workspace,
    net: PrunedModel,
    form: Form,
    section: FitSection,
    stage: str,
    progress: Progress,
    *,
    terms: Mapping[str, Term] = NO_TERMS,
    after_step: Sequence[AfterStep] = (),
) -> Numbers:
    """Train a form of `net`, which has the new weights then. Returns its scores."""
    holding_masks: list[AfterStep] = []
    if form.masked:
        check_masked(stage, workspace.ranks, form.masked)
        progress.note(f"{stage} trains masked: {form.masked}")
        holding_masks.append(lambda _: net.hold_masks())
    result = train_stage(
        workspace,
        form.module,
        section,
        stage,
        progress,
        terms=terms,
        after_step=[*holding_masks, *after_step],
        plan=net.plan if net.cut else None,
        pattern=form.pattern,
    )
    return result.scores


def train_pruned(
    workspace: Workspace,
    net: PrunedModel,
    section: FitSection,
    stage: str,
    progress: Progress,
    *,
    terms: Mapping[str, Term] = NO_TERMS,
    held: HeldPattern | None = None,
) -> Numbers:
    """Train `net` in the form that suits it. Returns its scores."""
    return train_form(workspace, net, form_of(net, held), section, stage, progress, terms=terms)
