"""Export a finished run again, from its checkpoints: another form, the same weights, scored anew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from edgeslim.errors import BundleError, CheckpointError, ConfigError, UnsupportedGraphError, first_line
from edgeslim.exporter.bundle import amend_bundle
from edgeslim.progress import Progress
from edgeslim.runtime import Bundle, read_bundle

from .bundles import export_net, score_bundle
from .checkpoint import Checkpoint, check_fit, load_checkpoint, load_state
from .front import parent_of
from .precisions import make_precisions, take_precisions
from .pruned import PrunedModel
from .recipe import Recipe
from .recipe_file import parse_recipe
from .results import REPORT
from .sparsity.held import STAGE
from .stages.scoring import reached_by
from .stages.sparse import SPARSE
from .workspace import RECIPE, Workspace, open_workspace


def export_run(
    run: Path, bundle: Path, progress: Progress, *, dense: bool = False, archive: bool = False, simplify: bool = True
) -> Path:
    """Write `bundle` from the checkpoints in `run`. Raises CheckpointError if the run has not come so far.

    If it has the same model as the bundle that the run measured, it also carries the run's report and the precisions
    as they were measured then; else those that the recipe names are made anew.
    """
    kind = "dense" if dense else "compact"
    recipe = _recipe_of(run)
    _check_place(run, bundle, kind)
    as_asked = recipe.export.model_copy(update={"simplify": simplify})
    workspace = open_workspace(recipe.model_copy(update={"export": as_asked}), run, progress)
    parent = parent_of(run)
    if parent is not None:  # where the stages are that all points of a front share
        workspace = replace(workspace, parent=replace(workspace, recipe=_recipe_of(parent), directory=parent))
    module = workspace.fresh_module()
    start = _finished(workspace, "dense")
    check_fit(start, workspace.stage("dense"), workspace.key("dense"), module)
    load_state(module, start.model)
    progress.stage("analysis")
    net = PrunedModel.from_module(module, torch.from_numpy(workspace.calibration(1)))
    if not dense and net.channels.families:
        final, key = _finished(workspace, "final"), workspace.key("final")
        net.apply(final.plan or net.plan)
        if workspace.recipe.prune is not None:
            net.reached = reached_by(workspace, workspace.recipe.prune, net, progress)
        try:
            small = net.compact()
            check_fit(final, workspace.stage("final"), key, small)
            load_state(small, final.model)
        except UnsupportedGraphError:  # the class hard-codes its widths, so it was trained masked
            check_fit(final, workspace.stage("final"), key, net.module)
            net.load_dense_state(final.model)
    elif not dense and workspace.recipe.weights is not None:  # single weights were all there was to prune
        stage = _last_without_cuts(workspace.recipe)
        last = _finished(workspace, stage)
        check_fit(last, workspace.stage(stage), workspace.key(stage), module)
        net.load_dense_state(last.model)
    measured = _intact(run / f"{kind}.bundle")  # before it is written over, if that is what was asked for
    path = export_net(workspace, net, kind, progress, bundle, archive)
    if measured is not None and measured.manifest.model_entry != read_bundle(path).manifest.model_entry:
        measured = None
    if not dense and (measured is None or not take_precisions(workspace, measured, path)):
        make_precisions(workspace, path, progress)
    score_bundle(workspace, path, progress)
    if measured is not None and REPORT in measured.files:
        amend_bundle(path, files={REPORT: measured.files[REPORT]})
    return path


def _recipe_of(run: Path) -> Recipe:
    """The recipe that a run was made by. Raises CheckpointError for what is no run."""
    path = run / RECIPE
    if not path.is_file():
        raise CheckpointError(f"{run} is no run: it has no recipe.json", "make one with `edgeslim compress`")
    try:
        return parse_recipe(json.loads(path.read_text()), str(path))
    except (ValueError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{path} is no recipe of a run: {first_line(error)}", "run `edgeslim compress` on the recipe again"
        ) from error


def _last_without_cuts(recipe: Recipe) -> str:
    """The stage that left the weights of a net without channels to prune, which is not fine-tuned."""
    later = recipe.order[recipe.order.index("weights") :]
    return SPARSE if "sparsify" in later and recipe.sparsify is not None else STAGE


def _check_place(run: Path, bundle: Path, kind: str) -> None:
    """A run's directory holds what a run writes, and nothing else."""
    place = bundle.absolute()
    if run.absolute() in place.parents and place != run.absolute() / f"{kind}.bundle":
        raise ConfigError(f"{bundle} lies inside the run {run}", f"choose another folder, or {run / kind}.bundle")


def _finished(workspace: Workspace, stage: str) -> Checkpoint:
    saved = load_checkpoint(workspace.stage(stage))
    if not saved.finished:
        raise CheckpointError(
            f"{workspace.directory}: stage {stage} is not finished", "run `edgeslim compress` again: it continues"
        )
    return saved


def _intact(path: Path) -> Bundle | None:
    try:
        return read_bundle(path)
    except BundleError:
        return None
