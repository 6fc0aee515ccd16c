"""Making up for a cut before anything is trained, as the recipe's section `prune.recovery` says."""

from __future__ import annotations

import onnx_ir as ir

from ..pruned import PrunedModel
from ..recipe import RecoverySection
from ..recovery import Gain, image_batches
from ..workspace import Workspace


def mend(workspace: Workspace, section: RecoverySection, net: PrunedModel, former: ir.Model) -> tuple[Gain, ...]:
    """Make up for the last cut of `net` with the methods of `section`; its weights change.

    former: its graph before the cut. Returns what each method bought.
    """
    inputs = image_batches(former, workspace.calibration(section.images))
    found = workspace.ranks.from_first(lambda: net.find_recovery(former, inputs, section.methods))
    return net.take(found).gains


def unkept_note(cut: str, method: str) -> str:
    """What a person should know of a method that was not kept after a cut."""
    return f"{cut}: {method} was not kept, for the outputs did not come nearer to the dense net's"


def gain_note(cut: str, gain: Gain) -> str:
    """What a method bought after a cut, for a person."""
    if not gain.kept:
        return unkept_note(cut, gain.method)
    return (
        f"{cut}: {gain.method} brought the outputs from {gain.before:.1%} to {gain.after:.1%} off those before the cut"
    )
