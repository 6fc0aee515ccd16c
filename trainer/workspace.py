"""Everything a recipe stands for, built once: data, image format, net, task, keys, places.

A run lives in one directory:

    out/recipe.json        the recipe as it was resolved
    out/stages/<stage>/    a checkpoint of every training stage
    out/dense.bundle, out/compact.bundle, out/result.json, out/report.html

Each stage has a key: the hash of the recipe's sections it depends on and of the training images and labels. A rerun
reuses the stages whose key is unchanged. The source of a net by import path is not part of it: give `--fresh` after
changing it.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from edgeslim.atomic import write_text
from edgeslim.errors import ConfigError, DataError, first_line

from .data import Sample, SegmentationData, build_data, channel_statistics
from .data.augment import Augment
from .data.draws import CropDraws
from .evaluate import ImageFormat, module_runner, pad_to_multiple, score_frames
from .losses import SegmentationLoss
from .models.registry import build_model
from .progress import Progress
from .recipe import Recipe
from .starting_weights import load_weights
from .task import Task

ASSUMED_MULTIPLE = 32
"""Image sides are made divisible by this for a net that has no `size_multiple` of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A recipe ready to run.

    module: the net as initialised from the seed or from given weights, never trained in place.  data_digest,
    weights_digest: SHA-256 of the images that are learnt from, and of the given weights ("" where there are none).
    """

    recipe: Recipe
    directory: Path
    data: SegmentationData
    data_digest: str
    weights_digest: str
    image: ImageFormat
    module: nn.Module
    task: Task

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of a camera frame: the recipe's, or the first test image's padded to the net's multiple."""
        if self.recipe.export.size is not None:
            return self.recipe.export.size
        height, width, _ = pad_to_multiple(self.data.test[0].image, self.image.multiple).shape
        return height, width

    def save_recipe(self) -> None:
        """Write the recipe as it was resolved. Not before a stage has accepted the directory as its own."""
        write_text(self.directory / "recipe.json", self.recipe.model_dump_json(indent=2) + "\n")

    def fresh_module(self) -> nn.Module:
        """A copy of the untrained net."""
        return copy.deepcopy(self.module)

    def stage(self, name: str) -> Path:
        """Where a stage keeps its checkpoint."""
        return self.directory / "stages" / name

    def key(self, stage: str) -> str:
        """Identifies a stage by all it depends on: net, data, seed, and its sections. SHA-256, hexadecimal."""
        recipe = self.recipe
        pruned = (recipe.sparsify, recipe.prune, recipe.finetune)
        later: Mapping[str, tuple[BaseModel | None, ...]] = {"dense": (), "sparse": (recipe.sparsify,)}
        model = recipe.model.model_copy(update={"weights": None})  # what counts is what they are, not where
        parts = (model, recipe.data, recipe.augment, recipe.loss, recipe.train, *later.get(stage, pruned))
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
        """`count` training crops, normalised, not augmented. Returns (count, 3, h, w) float32."""
        images = torch.stack([self.task.draws[i][0] for i in range(count)])
        return np.asarray(_normalized(images.float() / 255, self.image).numpy(), np.float32)


def open_workspace(recipe: Recipe, directory: Path, progress: Progress) -> Workspace:
    """Read the data, build the net, and check that they fit.

    Raises DataError, ConfigError or UnsupportedGraphError for what a recipe can get wrong.
    """
    progress.stage("data")
    data = build_data(recipe.data, recipe.seed)
    if data.skipped:
        progress.note(f"skipped {len(data.skipped)} that cannot be decoded: {', '.join(data.skipped)}")
    torch.manual_seed(recipe.seed)
    module = build_model(recipe.model.name, recipe.model.args, classes=len(data.classes))
    weights_digest = "" if recipe.model.weights is None else load_weights(module, recipe.model.weights)
    multiple = getattr(module, "size_multiple", None)
    if not isinstance(multiple, int):
        multiple = ASSUMED_MULTIPLE
        progress.note(f"{recipe.model.name} has no size_multiple: images are padded to multiples of {multiple}")
    _check_crop(recipe, multiple)
    whole = pad_to_multiple(data.validation[0].image, multiple).shape[:2]
    for shape in ((2, 3, *recipe.augment.crop), (1, 3, *whole)):
        _check_module(recipe.model.name, module, len(data.classes), shape)
    mean, std = recipe.data.mean, recipe.data.std
    if mean is None or std is None:
        measured = channel_statistics(data.train, data.ignore_index)
        mean, std = mean or measured[0], std or measured[1]
    image = ImageFormat(mean=mean, std=std, multiple=multiple)
    task = _task(recipe, data, image)
    return Workspace(
        recipe=recipe,
        directory=directory,
        data=data,
        data_digest=_digest((*data.train, *data.validation)),
        weights_digest=weights_digest,
        image=image,
        module=module,
        task=task,
    )


def _digest(samples: Iterable[Sample]) -> str:
    """SHA-256 of names, pixels and labels."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.name.encode())
        digest.update(np.ascontiguousarray(sample.image).tobytes())
        digest.update(np.ascontiguousarray(sample.mask).tobytes())
    return digest.hexdigest()


def _task(recipe: Recipe, data: SegmentationData, image: ImageFormat) -> Task:
    augment = Augment(recipe.augment, data.ignore_index)

    def prepare(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        changed, labels = augment(images.float() / 255, masks)
        return _normalized(changed, image), labels

    def evaluate(module: nn.Module) -> Mapping[str, float]:
        run = module_runner(module, image)
        scores = score_frames(run, data.validation, data.classes, data.ignore_index, image.multiple)
        known = {name: value for name, value in scores.items() if value is not None}
        if "dice" not in known:
            raise DataError("the validation images have no labelled pixel to score", "raise data.validation")
        return known

    loss = SegmentationLoss(recipe.loss.dice, recipe.loss.cross_entropy, len(data.classes), data.ignore_index)
    return Task(
        draws=CropDraws(data.train, recipe.augment.crop, recipe.seed, data.ignore_index),
        prepare=prepare,
        loss=loss,
        evaluate=evaluate,
        score="dice",
    )


def _normalized(scaled: Tensor, image: ImageFormat) -> Tensor:
    """What the net sees of pixels scaled to [0, 1]: (N, 3, h, w) float32 -> the same."""
    mean, std = (scaled.new_tensor(v)[:, None, None] for v in (image.mean, image.std))
    return (scaled - mean) / std


def _check_module(name: str, module: nn.Module, classes: int, shape: tuple[int, ...]) -> None:
    """Run the net once on empty images: what is wrong with it should be said before an hour of training."""
    try:
        module.eval()
        with torch.no_grad():
            logits = module(torch.zeros(shape))
    except Exception as error:  # a user's forward fails in any way it likes
        raise ConfigError(
            f"model {name}: forward fails on images of shape {shape}: {first_line(error)}",
            "a net takes float32 images (N, 3, H, W); check its arguments and augment.crop",
        ) from error
    finally:
        module.train()
    wanted = (shape[0], classes, *shape[2:])
    if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
        seen = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigError(
            f"model {name} returns {seen} for images of shape {shape}; wanted are logits {wanted}",
            "return one logit per class and pixel, at the size of the image",
        )


def _check_crop(recipe: Recipe, multiple: int) -> None:
    height, width = recipe.augment.crop
    if height % multiple or width % multiple:
        fitting = [-(-side // multiple) * multiple for side in (height, width)]
        raise ConfigError(
            f"augment.crop is {height} x {width}; {recipe.model.name} needs sides divisible by {multiple}",
            f"for example --set augment.crop='{fitting}'",
        )
    size = recipe.export.size
    if size is not None and (size[0] % multiple or size[1] % multiple):
        raise ConfigError(f"export.size is {size[0]} x {size[1]}; sides must be divisible by {multiple}")
