"""Making up for a cut before anything is trained, as the recipe's section `prune.recovery` says."""

from __future__ import annotations

import onnx_ir as ir

from ..pruned import PrunedModel
from ..recovery import image_batches
from ..workspace import Workspace


def mend(workspace: Workspace, net: PrunedModel, former: ir.Model) -> tuple[str, ...]:
    """Make up for the last cut of `net` with the recipe's methods; its weights change.

    former: its graph before the cut. Returns the methods that were not kept.
    """
    section = workspace.recipe.prune.recovery
    if section is None:
        return ()
    frames = workspace.calibration(section.images)
    gains = net.recover(former, image_batches(former, frames), section.methods).gains
    return tuple(gain.method for gain in gains if not gain.kept)


def unkept_note(cut: str, method: str) -> str:
    """What a person should know of a method that was not kept after a cut."""
    return f"{cut}: {method} was not kept, for the outputs did not come nearer to the dense net's"
