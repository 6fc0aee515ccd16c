"""Export a finished run again, from its checkpoints: another form, the same weights, scored anew."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from edgeslim.errors import BundleError, CheckpointError, UnsupportedGraphError
from edgeslim.exporter.bundle import amend_bundle
from edgeslim.runtime import Manifest, read_bundle

from .checkpoint import load_checkpoint
from .compress import REPORT, export_net, score_bundle
from .progress import Progress
from .pruned import PrunedModel
from .recipe_file import parse_recipe
from .workspace import open_workspace


def export_run(
    run: Path, bundle: Path, progress: Progress, *, dense: bool = False, archive: bool = False, simplify: bool = True
) -> Path:
    """Write `bundle` from the checkpoints in `run`. Raises CheckpointError if the run has not come so far.

    If it has the same model as the bundle that the run measured, it also carries the run's report.
    """
    recipe_file = run / "recipe.json"
    if not recipe_file.is_file():
        raise CheckpointError(f"{run} is no run: it has no recipe.json", "make one with `edgeslim compress`")
    try:
        data = json.loads(recipe_file.read_text())
        data["export"]["simplify"] = simplify
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{recipe_file} is damaged: {error!r}", "run `edgeslim compress` on the recipe again"
        ) from error
    workspace = open_workspace(parse_recipe(data, str(recipe_file)), run, progress)
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
    kind = "dense" if dense else "compact"
    path = export_net(workspace, net, kind, progress, bundle, archive)
    manifest = score_bundle(workspace, path, progress)
    report = _report(run / f"{kind}.bundle", manifest)
    if report is not None:
        amend_bundle(path, files={REPORT: report})
    return path


def _report(measured: Path, manifest: Manifest) -> bytes | None:
    """The report in the run's own bundle, if that is intact and its model is the one of `manifest`."""
    try:
        bundle = read_bundle(measured)
    except BundleError:
        return None
    same = bundle.manifest.files[bundle.manifest.model] == manifest.files[manifest.model]
    return bundle.files.get(REPORT) if same else None
