"""Export a finished run again, from its checkpoints: another form, the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from edgeslim.errors import CheckpointError, UnsupportedGraphError

from .checkpoint import load_checkpoint
from .compress import export_net
from .progress import Progress
from .pruned import PrunedModel
from .recipe import parse_recipe
from .workspace import open_workspace


def export_run(
    run: Path, bundle: Path, progress: Progress, *, dense: bool = False, archive: bool = False, simplify: bool = True
) -> Path:
    """Write `bundle` from the checkpoints in `run`. Raises CheckpointError if the run has not come so far."""
    path = run / "recipe.json"
    if not path.is_file():
        raise CheckpointError(f"{run} is no run: it has no recipe.json", "make one with `edgeslim compress`")
    try:
        data = json.loads(path.read_text())
        data["export"]["simplify"] = simplify
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}", "run `edgeslim compress` on the recipe again") from error
    workspace = open_workspace(parse_recipe(data, str(path)), run, progress)
    module = workspace.fresh_module()
    start = load_checkpoint(workspace.stage("dense"))
    if start.key != workspace.key():
        raise CheckpointError(
            f"{run}: recipe.json and the checkpoints belong to different runs", "compress again, with --fresh"
        )
    module.load_state_dict(start.model)
    progress.stage("analysis")
    net = PrunedModel.from_module(module, torch.from_numpy(workspace.calibration(1)))
    if not dense and net.channels.families:
        final = load_checkpoint(workspace.stage("final"))
        if final.plan is None or not final.finished:
            raise CheckpointError(f"{run} is not finished", "run `edgeslim compress` again: it continues")
        net.apply(final.plan)
        try:
            net.compact().load_state_dict(final.model)
        except UnsupportedGraphError:  # the class hard-codes its widths, so it was trained masked
            net.load_dense_state(final.model)
    return export_net(workspace, net, "dense" if dense else "compact", progress, bundle, archive)
