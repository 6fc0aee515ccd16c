"""Everything a recipe stands for, built once: data, image format, net, task, keys, places.

A run lives in one directory:

    out/recipe.json        the recipe as it was resolved
    out/stages/<stage>/    a checkpoint of every training stage
    out/dense.bundle, out/compact.bundle, out/result.json, out/report.html
    out/front/<point>/     the same for every other level of its budget, see `trainer.front`

Each stage has a key: the hash of the recipe's sections it depends on and of the training images and labels. A rerun
reuses the stages whose key is unchanged. The source of a net by import path is not part of it: give `--fresh` after
changing it.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from edgeslim.atomic import write_text
from edgeslim.errors import ConfigError, first_line
from edgeslim.progress import Progress, told_late

from .evaluate import ImageFormat, normalized
from .kinds import Kind, build_kind
from .models.registry import build_model
from .ranks import ALONE, Ranks
from .ranks.agree import check_same_start
from .ranks.key import with_whole_batches
from .recipe import Recipe
from .recipe_criteria import Calibrated
from .starting_weights import load_weights
from .task import Task

RECIPE = "recipe.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A recipe ready to run.

    module: the net as initialised from the seed or from given weights, never trained in place.  data_digest,
    weights_digest: SHA-256 of the images that are learnt from, and of the given weights ("" where there are none).
    ranks: the processes that train together, of which this is one.  parent: the run of which this is one point with
    another budget.
    """

    recipe: Recipe
    directory: Path
    kind: Kind
    data_digest: str
    weights_digest: str
    image: ImageFormat
    module: nn.Module
    task: Task
    ranks: Ranks = ALONE
    parent: Workspace | None = None

    @property
    def whole_recipe(self) -> Recipe:
        """What is computed, by however many: the recipe as one process would need it for the same batches."""
        return with_whole_batches(self.recipe, self.ranks)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of a camera frame: the recipe's, or the first test image's as the net sees it."""
        return self.recipe.export.size or self.kind.frame_size(self.image.multiple)

    def save_recipe(self) -> None:
        """Write the recipe as it was resolved. Not before a stage has accepted the directory as its own."""
        if self.ranks.first:
            write_text(self.directory / RECIPE, self.whole_recipe.model_dump_json(indent=2) + "\n")

    def fresh_module(self) -> nn.Module:
        """A copy of the untrained net."""
        return copy.deepcopy(self.module)

    def stage(self, name: str) -> Path:
        """Where a stage keeps its checkpoint: with the parent run where it is that run's stage just as well."""
        if self.parent is not None and self.parent.key(name) == self.key(name):
            return self.parent.stage(name)
        return self.directory / "stages" / name

    def key(self, stage: str) -> str:
        """Identifies a stage by all it depends on: net, data, seed, and its sections. SHA-256, hexadecimal."""
        recipe = self.whole_recipe
        model = recipe.model.model_copy(update={"weights": None})  # what counts is what they are, not where
        parts = (model, recipe.data, recipe.augment, recipe.loss, recipe.train, *_sections_until(stage, recipe))
        text = "\n".join(
            [
                str(recipe.seed),
                self.data_digest,
                self.weights_digest,
                *("null" if p is None else p.model_dump_json() for p in parts),
            ]
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def calibration(self, count: int) -> NDArray[np.float32]:
        """`count` training crops, normalised, not augmented. Returns (count, channels, h, w) float32.

        Of a training set of fewer images, further crops of the same ones: `calibration_notes` says so.
        """
        images = torch.stack([self.task.draws[i][0] for i in range(count)])
        return np.asarray(normalized(images.float() / 255, self.image).numpy(), np.float32)


def _sections_until(stage: str, recipe: Recipe) -> list[BaseModel | None]:
    """The sections behind the dense net that a stage depends on; weights-1 depends on what weights does."""
    kind = stage.partition("-")[0]
    if kind == "dense":
        return []
    own = {"sparse": "sparsify", "weights": "weights", "round": "prune"}.get(kind, recipe.order[-1])
    past = recipe.order[: recipe.order.index(own) + 1]
    # A recipe without weight pruning has the keys that it had before there was any.
    found = [getattr(recipe, name) for name in past if name != "weights" or recipe.weights is not None]
    gradual = [] if recipe.gradual is None or "sparsify" not in past else [recipe.gradual]
    if gradual and recipe.export.size is not None:  # the frame on which a budget counts work, cut within a stage
        found.append(recipe.export.model_copy(update={"simplify": True, "frame_range": None}))
    # The dense net teaches what has been cut, dead filters included, which leave by the widths of `prune`.
    if "prune" in past:
        return [*found, recipe.finetune]
    if recipe.weights is not None and "weights" in past[:-1]:
        return [*found, recipe.prune, recipe.finetune]
    return [*found, *gradual] if kind == "sparse" else found


def calibration_notes(recipe: Recipe, images: int) -> tuple[str, ...]:
    """A sentence for every section of the recipe that asks for more calibration images than there are."""
    prune = recipe.prune
    if prune is None:
        return ()
    asked = {
        "prune.criterion": prune.criterion.images if isinstance(prune.criterion, Calibrated) else 0,
        "prune.recovery": 0 if prune.recovery is None else prune.recovery.images,
    }
    return tuple(
        f"{section} asks for {count} calibration images, and there are {images} different training images: "
        f"{count} crops of those are looked at"
        for section, count in asked.items()
        if count > images
    )


def open_workspace(recipe: Recipe, directory: Path, progress: Progress, ranks: Ranks = ALONE) -> Workspace:
    """Read the data, build the net, and check that they fit. Every rank opens its own.

    Raises DataError, ConfigError or UnsupportedGraphError for what a recipe can get wrong, ConfigError where another
    rank has another recipe, or other images or weights.
    """
    progress.stage("data")
    kind = build_kind(recipe, told_late(progress, "checking data"), ranks)
    if kind.skipped:
        progress.note(f"skipped {len(kind.skipped)} that cannot be decoded: {', '.join(kind.skipped)}")
    if kind.absent:
        progress.note(f"no training image shows {', '.join(kind.absent)}: the net cannot learn what it never sees")
    torch.manual_seed(recipe.seed)
    module = build_model(recipe.model.name, recipe.model.args, classes=len(kind.classes), in_channels=kind.channels)
    weights_digest = "" if recipe.model.weights is None else load_weights(module, recipe.model.weights)
    multiple = getattr(module, "size_multiple", None)
    if not isinstance(multiple, int):
        multiple = kind.assumed_multiple
        if multiple > 1:
            progress.note(f"{recipe.model.name} has no size_multiple: images are padded to multiples of {multiple}")
    _check_sizes(recipe, kind, multiple)
    whole = kind.frame_size(multiple, "validation")
    for count, size in dict.fromkeys(((2, kind.crop), (1, whole), (1, recipe.export.size or whole))):
        _check_module(recipe.model.name, module, (count, kind.channels, *size), kind.answer_shape(count, size))
    mean, std = recipe.data.mean, recipe.data.std
    if mean is None or std is None:
        measured = kind.statistics()
        mean, std = mean or measured[0], std or measured[1]
    image = ImageFormat(mean=mean, std=std, multiple=multiple)
    workspace = Workspace(
        recipe=recipe,
        directory=directory,
        kind=kind,
        data_digest=kind.digest(),
        weights_digest=weights_digest,
        image=image,
        module=module,
        task=kind.task(image),
        ranks=ranks,
    )
    check_same_start(ranks, _what_counts(workspace))
    return workspace


def _what_counts(workspace: Workspace) -> Mapping[str, str]:
    """What all ranks must have alike, in words and in text. Where files lie may differ from machine to machine."""
    recipe = workspace.recipe.model_dump_json(exclude={"model": {"weights"}, "data": {"root"}})
    return {
        "options in recipe or command": f"{recipe}\n{workspace.ranks.launch.strategy}",
        "training or validation images": workspace.data_digest,
        "given weights": workspace.weights_digest,
    }


def _check_module(name: str, module: nn.Module, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Run the net once on empty images: what is wrong with it should be said before an hour of training.

    shape: of the images, (N, C, H, W).  wanted: of the logits.
    """
    try:
        module.eval()
        with torch.no_grad():
            logits = module(torch.zeros(shape))
    except Exception as error:  # a user's forward fails in any way it likes
        raise ConfigError(
            f"model {name}: forward fails on images of shape {shape}: {first_line(error)}",
            f"a net takes float32 images (N, {shape[1]}, H, W); check its arguments, augment.crop and export.size",
        ) from error
    finally:
        module.train()
    if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
        seen = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigError(
            f"model {name} returns {seen} for images of shape {shape}; wanted are logits {wanted}",
            "return one logit per class and pixel, at the size of the image"
            if len(wanted) == 4
            else "the data has one class an image: return one logit per class, or use a net that classifies",
        )


def _check_sizes(recipe: Recipe, kind: Kind, multiple: int) -> None:
    """Raise ConfigError for sizes that the net cannot take."""
    whole = kind.frame_size(multiple)
    if any(side % multiple for side in whole):
        raise ConfigError(
            f"the images are {whole[0]} x {whole[1]}; {recipe.model.name} needs sides divisible by {multiple}",
            "choose another net, or data.size where the data has one",
        )
    height, width = kind.crop
    if height % multiple or width % multiple:
        fitting = [-(-side // multiple) * multiple for side in (height, width)]
        raise ConfigError(
            f"augment.crop is {height} x {width}; {recipe.model.name} needs sides divisible by {multiple}",
            f"for example --set augment.crop='{fitting}'",
        )
    size = recipe.export.size
    if size is not None and (size[0] % multiple or size[1] % multiple):
        raise ConfigError(f"export.size is {size[0]} x {size[1]}; sides must be divisible by {multiple}")
