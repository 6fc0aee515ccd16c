"""What every training stage shares: its name gives its seed, its key and the place of its checkpoint.

A net that has been cut trains compact, which is exact and takes a fraction of the time. A class that hard-codes its
widths trains masked instead, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from edgeslim.errors import UnsupportedGraphError
from edgeslim.exporter.plan import PruningPlan

from ..fit import FitResult, fit
from ..progress import Progress
from ..pruned import PrunedModel
from ..recipe import FitSection
from ..sparsity import Pattern, apply_pattern, holding
from ..sparsity.held import HeldPattern
from ..task import NO_TERMS, AfterStep, Cutter, Term
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
        )


def train_pruned(
    workspace: Workspace,
    net: PrunedModel,
    section: FitSection,
    stage: str,
    progress: Progress,
    *,
    terms: Mapping[str, Term] = NO_TERMS,
    held: HeldPattern | None = None,
) -> Mapping[str, float]:
    """Train the compact net, or the masked one where the class cannot be shrunk. Returns its scores."""
    after_step: list[AfterStep] = []
    pattern = None
    try:
        module = net.compact()
        pattern = None if held is None else held.on_compact(net)
    except UnsupportedGraphError as error:
        progress.note(f"{stage} trains masked: {error.message}")
        module, after_step = net.module, [lambda _: net.hold_masks()]
        pattern = None if held is None else held.on_masked(net)
    result = train_stage(
        workspace,
        module,
        section,
        stage,
        progress,
        terms=terms,
        after_step=after_step,
        plan=net.plan,
        pattern=pattern,
    )
    return result.scores
