"""A recipe as a case: train, cut, export, and score the bundle that would be shipped."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from edgeslim.atomic import write_text
from edgeslim.trainer.bundles import export_net, score_bundle
from edgeslim.trainer.evaluate import module_runner
from edgeslim.trainer.recipe import Recipe
from edgeslim.trainer.recipe_file import load_recipe
from edgeslim.trainer.stages import train_and_prune, train_dense
from edgeslim.trainer.workspace import Workspace, open_workspace

from .case import Case, Numbers, Place
from .notes import Log

RECIPES = Path(__file__).parents[2] / "recipes"
NOT_TRAINING = {"name": True, "bench": True, "precisions": True, "export": {"frame_range"}}
"""What of a recipe has no part in the net that comes out."""


def recipe_case(name: str, recipe: str, overrides: Sequence[str] = ()) -> Case:
    """A case that is a recipe of the folder `recipes` with some values replaced (`key.path=value`, as in --set).

    `{data}` in a value stands for the data folder, `{seed}` for the run's seed. Numbers: the bundle's metrics on the
    test images, its parameters, and MACs as `compact.…`, the dense net's metrics as `dense.…`, the channels of every
    layer as `width.<layer>`, and the stages' scores on the validation images as `validation.<stage>`.
    """
    path = RECIPES / f"{recipe}.yaml"
    settings = {"recipe": path.read_text(encoding="utf-8"), "overrides": list(overrides)}

    def run(seed: int, place: Place) -> Numbers:
        values = [o.replace("{data}", str(place.data)).replace("{seed}", str(seed)) for o in overrides]
        return run_recipe(load_recipe(path, [*values, f"seed={seed}"]), place.work / f"{file_name(name)}-{seed}", place)

    return Case(name=name, settings=settings, run=run)


def run_recipe(recipe: Recipe, directory: Path, place: Place) -> dict[str, float]:
    """Train and cut as the recipe says, with a dense net that another case may have trained already."""
    log = Log(directory.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about itself
        workspace, dense = open_run(recipe, directory, place, log)
        trained = train_and_prune(workspace, log)
        manifest = score_bundle(workspace, export_net(workspace, trained.pruned, "compact", log), log)
        numbers = {f"dense.{name}": value for name, value in _test(dense, trained.dense).items()}
    numbers |= {f"compact.{name}": value for name, value in manifest.metrics.items()}
    sizes, main = manifest.sizes, workspace.task.score
    for name in ("parameters", "macs", "dense_weights", "weights", "nonzero_weights"):
        numbers[f"compact.{name}"] = getattr(sizes, name) or 0
    numbers |= {f"width.{layer.layer}": layer.width_after for layer in manifest.coverage}
    return numbers | {f"validation.{stage}": scores[main] for stage, scores in trained.scores.items()}


def open_run(recipe: Recipe, directory: Path, place: Place, log: Log) -> tuple[Workspace, Workspace]:
    """The run of this recipe with its dense net in place, and the run that the dense net was trained in."""
    workspace = open_workspace(recipe, directory, log)
    dense = _dense(recipe, place.work / "dense" / workspace.key("dense")[:16], log)
    if not workspace.stage("dense").exists():
        shutil.copytree(dense.stage("dense"), workspace.stage("dense"))
    return workspace, dense


def _dense(recipe: Recipe, directory: Path, log: Log) -> Workspace:
    """The place where the dense net of this recipe is trained once for all cases that start from it."""
    workspace = open_workspace(recipe, directory, log)
    if not workspace.stage("dense").exists():
        train_dense(workspace, log)
    return workspace


def _test(workspace: Workspace, dense: nn.Module) -> dict[str, float]:
    """The dense net's scores on the test images."""
    kept = workspace.directory / "test.json"
    if not kept.exists():
        scores = workspace.kind.score_test(module_runner(dense, workspace.image), workspace.image)
        write_text(kept, json.dumps({name: value for name, value in scores.items() if value is not None}))
    found: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def file_name(case: str) -> str:
    """A case's name as that of a folder."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", case).strip("-")
