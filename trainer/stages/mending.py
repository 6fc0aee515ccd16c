"""Making up for a cut before anything is trained, as the recipe's section `prune.recovery` says."""

from __future__ import annotations

import onnx_ir as ir

from ..pruned import PrunedModel
from ..recovery import image_batches, recover
from ..workspace import Workspace


def mend(workspace: Workspace, net: PrunedModel, former: ir.Model) -> tuple[str, ...]:
    """Make up for the last cut of `net` with the recipe's methods; its weights change.

    former: its graph before the cut. Returns the methods that were not kept.
    """
    section = workspace.recipe.prune.recovery
    if section is None:
        return ()
    inputs = image_batches(former, workspace.calibration(section.images))
    methods, channels, cut = section.methods, net.channels, net.cut
    found = workspace.ranks.from_first(lambda: recover(former, net.graph, channels, cut, inputs, methods))
    return tuple(gain.method for gain in net.take(found).gains if not gain.kept)


def unkept_note(cut: str, method: str) -> str:
    """What a person should know of a method that was not kept after a cut."""
    return f"{cut}: {method} was not kept, for the outputs did not come nearer to the dense net's"
