"""The pattern of a run, from where it is chosen to the last step of training.

Chosen among the weights that are left, once or in rounds, in which it only shrinks, and kept in dense shapes.
Channels that are cut later take their weights along: what is left of a pattern is the pattern of what is left. Two of
four is chosen again on the narrower kernels, since groups of four neighbours are other groups there; a kernel that no
longer divides by four keeps what is left of its pattern, and a note says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from edgeslim.exporter.shrink import shrink_tensor
from edgeslim.progress import Progress

from ..checkpoint import INDEX, load_checkpoint
from ..compact import expand_state
from ..evaluate import module_runner
from ..pruned import PrunedModel
from ..recipe import WeightsSection
from ..workspace import Workspace
from .kernels import Kernels, find_kernels
from .lamp import choose_lamp
from .magnitude import choose_magnitude
from .pattern import Pattern
from .threshold import threshold_pattern
from .two_of_four import choose_two_of_four

STAGE = "weights"
"""The stage of the last round; those before it are called weights-1, weights-2, ..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPattern:
    """A pattern in dense shapes and how it was chosen."""

    method: str
    pattern: Pattern

    def admitting(self, module: nn.Module) -> HeldPattern:
        """With the weights that are not zero in `module`: what a fold has put on a carrier must stay."""
        state = module.state_dict()
        keep = {name: flags | (state[name] != 0).cpu() for name, flags in self.pattern.keep.items()}
        return HeldPattern(method=self.method, pattern=Pattern(keep=keep, notes=self.pattern.notes))

    def on(self, net: PrunedModel, module: nn.Module) -> Pattern:
        """The pattern for `module`, the compact or the masked form of `net`; what is cut is pruned in the latter."""
        return self.on_masked(net) if module is net.module else self.on_compact(net)

    def on_compact(self, net: PrunedModel) -> Pattern:
        """The pattern for `net.compact()`."""
        small = self.pattern.shrink(net.plan)
        if self.method != "2:4":
            return small
        again = choose_two_of_four(_kernels_left(net))
        lost = sorted(small.keep.keys() - again.keep.keys())
        notes = tuple(
            f"{name} is no longer two of four: {small.keep[name].shape[1]} of its input channels are left"
            for name in lost
        )
        return Pattern(keep={**small.keep, **again.keep}, notes=notes)

    def on_masked(self, net: PrunedModel) -> Pattern:
        """The pattern for `net.module`, of a class that cannot shrink; what is cut is pruned as well."""
        return self.pattern if self.method != "2:4" else _in_dense_shapes(self.on_compact(net), net)


def choose_pattern(
    workspace: Workspace,
    net: PrunedModel,
    module: nn.Module,
    section: WeightsSection,
    progress: Progress,
    stage: str = STAGE,
    share: float = 1.0,
) -> HeldPattern:
    """The pattern that a recipe asks for, of the trained `net`; an interrupted run goes on with the one it had.

    module: the form of `net` that is trained.  stage: the round's name.  share: in (0, 1], the part of the way to the
    fraction, on a logarithmic scale.
    """
    progress.stage("choosing weights")
    saved = _saved(workspace, net, stage)
    if section.method == "threshold" and saved is not None:
        return HeldPattern(method=section.method, pattern=_in_dense_shapes(_of_compact(saved, net, module), net))
    fraction = 1.0 - (1.0 - (section.fraction or 0.0)) ** share if share < 1.0 else section.fraction or 0.0
    if section.method == "magnitude":
        pattern = choose_magnitude(_kernels_left(net), fraction, per_layer=section.per_layer)
    elif section.method == "lamp":
        pattern = choose_lamp(_kernels_left(net), fraction)
    elif section.method == "2:4":
        pattern = choose_two_of_four(_kernels_left(net))
    else:
        search = threshold_pattern(module, validation_loss(workspace), section.delta or 0.0)
        pattern = _of_compact(search.pattern, net, module)
        threshold = "none" if search.threshold is None else f"{search.threshold:.4g}"
        progress.note(
            f"{stage}: threshold {threshold} after {len(search.trials)} trials, validation loss "
            f"{search.unpruned_loss:.4g} unpruned and {search.limit:.4g} allowed"
        )
    progress.note(f"{stage}: {pattern.summary}")
    return HeldPattern(method=section.method, pattern=_in_dense_shapes(pattern, net))


def validation_loss(workspace: Workspace) -> Callable[[nn.Module], float]:
    """The task's loss on the validation images, whole and not augmented, averaged over them."""

    def loss(module: nn.Module) -> float:
        total, count = 0.0, 0
        for logits, targets in workspace.kind.validation_answers(
            module_runner(module, workspace.image), workspace.image
        ):
            found = workspace.task.loss(torch.from_numpy(logits.copy()), torch.from_numpy(targets))
            total, count = total + float(found) * len(targets), count + len(targets)
        return total / count

    return loss


def _saved(workspace: Workspace, net: PrunedModel, stage: str) -> Pattern | None:
    """The pattern in this stage's checkpoint, where that is of the same recipe and the same channels."""
    path = workspace.stage(stage)
    if not (path / INDEX).is_file():
        return None
    saved = load_checkpoint(path)
    cut = net.plan if net.cut else None
    if saved.key != workspace.key(stage) or saved.plan != cut or "pattern" not in saved.parts:
        return None  # what trains next says whose checkpoint it is
    return Pattern(keep=saved.parts["pattern"])


def _kernels_left(net: PrunedModel) -> Kernels:
    """The kernels of `net` as they are when the cut channels are gone."""
    kernels, plan = find_kernels(net.module), net.plan.initializers
    left = [replace(k, weight=shrink_tensor(k.weight, plan.get(k.name, ()))) for k in kernels.found]
    return Kernels(found=tuple(left), notes=kernels.notes)


def _of_compact(pattern: Pattern, net: PrunedModel, module: nn.Module) -> Pattern:
    """A pattern in the shapes of `module`, which is the compact or the masked form of `net`, in compact ones."""
    return replace(pattern.shrink(net.plan), notes=pattern.notes) if module is net.module else pattern


def _in_dense_shapes(small: Pattern, net: PrunedModel) -> Pattern:
    whole = {name: torch.ones_like(t, dtype=torch.bool) for name, t in net.module.state_dict().items()}
    dense = expand_state(small.keep, whole, net.plan)
    return replace(small, keep={name: dense[name] for name in small.keep})
