"""Making up for a cut before anything is trained, as the recipe's section `prune.recovery` says."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import onnx_ir as ir

from ..pruned import PrunedModel
from ..recipe import RecoverySection
from ..recovery import Gain, image_batches
from ..task import Numbers
from ..workspace import Workspace


def mend(workspace: Workspace, section: RecoverySection, net: PrunedModel, former: ir.Model) -> Iterator[Gain]:
    """Make up for the last cut of `net` with the methods of `section`, one after the other; its weights change.

    former: its graph before the cut. Yields what a method bought when it has done its work.
    """
    inputs = image_batches(former, workspace.calibration(section.images))
    for method in section.methods:
        found = workspace.ranks.from_first(functools.partial(net.find_recovery, former, inputs, (method,)))
        yield from net.take(found).gains


def unkept_note(cut: str, method: str) -> str:
    """What a person should know of a method that was not kept after a cut."""
    return f"{cut}: {method} was not kept, for it did not bring the outputs nearer to those before the cut"


def gain_note(cut: str, gain: Gain, score: str, before: Numbers, after: Numbers) -> str:
    """What a method bought after a cut, for a person. score: which of the net's scores before and after to tell."""
    if not gain.kept:
        return unkept_note(cut, gain.method)
    return (
        f"{cut}: {gain.method} brought the outputs from {gain.before:.1%} to {gain.after:.1%} off those before the "
        f"cut, {score} from {before[score]:.4f} to {after[score]:.4f}"
    )
