"""Segmentation: every pixel of an image has a class, or is unlabelled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeslim.bench.report.examples import Example
from edgeslim.runtime.manifest import TaskName
from edgeslim.runtime.validation import UNLABELLED

from ..data import Sample, SegmentationData, channel_statistics
from ..data.augment import Augment
from ..data.draws import CropDraws
from ..evaluate import FrameRunner, ImageFormat, module_runner, normalized, pad_to_multiple
from ..losses import SegmentationLoss
from ..metrics import SegmentationMetrics
from ..ranks import ALONE, Ranks
from ..recipe import Recipe
from ..task import Numbers, Scores, Task
from .protocol import Answers, known_scores

CROP = (96, 96)
"""Of training images, where the recipe leaves it open."""
SHOWN = 4
"""Examples in the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """See `Kind`. Images are scored whole, on their own pixels, padded by mirroring to the net's multiple."""

    recipe: Recipe
    data: SegmentationData
    ranks: Ranks = ALONE
    name: ClassVar[TaskName] = "segmentation"
    channels: ClassVar[int] = 3
    assumed_multiple: ClassVar[int] = 32

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    @property
    def skipped(self) -> tuple[str, ...]:
        return self.data.skipped

    @property
    def absent(self) -> tuple[str, ...]:
        return self.data.absent

    @property
    def crop(self) -> tuple[int, int]:
        return self.recipe.augment.crop or CROP

    @property
    def training_images(self) -> int:
        """How many images are learnt from."""
        return len(self.data.train)

    def frame_size(self, multiple: int, part: str = "test") -> tuple[int, int]:
        samples = self.data.test if part == "test" else self.data.validation
        height, width, _ = pad_to_multiple(samples[0].image, multiple).shape
        return height, width

    def answer_shape(self, count: int, size: tuple[int, int]) -> tuple[int, ...]:
        return (count, len(self.classes), *size)

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return channel_statistics(self.data.train, self.data.ignore_index)

    def digest(self) -> str:
        digest = hashlib.sha256()
        for sample in (*self.data.train, *self.data.validation):
            digest.update(sample.name.encode())
            digest.update(np.ascontiguousarray(sample.image).tobytes())
            digest.update(np.ascontiguousarray(sample.mask).tobytes())
        return digest.hexdigest()

    def frames(self, count: int, multiple: int) -> list[NDArray[np.uint8]]:
        return [pad_to_multiple(sample.image, multiple) for sample in self.data.validation[:count]]

    def training_frames(self, count: int, multiple: int) -> list[NDArray[np.uint8]]:
        return [pad_to_multiple(sample.image, multiple) for sample in self.data.train[:count]]

    def validation_set(self, multiple: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        samples = list(self.data.validation)
        height, width = (max(sample.mask.shape[axis] for sample in samples) for axis in (0, 1))
        height, width = (-(-side // multiple) * multiple for side in (height, width))
        frames = np.empty((len(samples), height, width, self.channels), np.uint8)
        targets = np.full((len(samples), height, width), UNLABELLED, np.int64)
        for frame, target, sample in zip(frames, targets, samples):
            rows, columns = sample.mask.shape
            frame[:] = np.pad(sample.image, ((0, height - rows), (0, width - columns), (0, 0)), mode="symmetric")
            mask = sample.mask.astype(np.int64)
            target[:rows, :columns] = np.where(mask == self.data.ignore_index, UNLABELLED, mask)
        return frames, targets

    def task(self, image: ImageFormat) -> Task:
        data, section = self.data, self.recipe.loss
        augment = Augment(self.recipe.augment, data.ignore_index, self.ranks)

        def prepare(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
            changed, labels = augment(images.float() / 255, masks)
            return normalized(changed, image), labels

        def evaluate(module: nn.Module) -> Numbers:
            mine = data.validation[self.ranks.rank :: self.ranks.world]
            metrics = self._count(module_runner(module, image), mine, image.multiple)
            metrics.add_up(self.ranks.total)
            return known_scores(metrics.compute(), "dice")

        return Task(
            draws=CropDraws(data.train, self.crop, self.recipe.seed, data.ignore_index),
            prepare=prepare,
            loss=SegmentationLoss(
                1.0 if section.dice is None else section.dice,
                section.cross_entropy,
                len(data.classes),
                data.ignore_index,
                section.label_smoothing,
            ),
            evaluate=evaluate,
            score="dice",
            ignore_index=data.ignore_index,
        )

    def score_test(self, run: FrameRunner, image: ImageFormat) -> Scores:
        return self._count(run, self.data.test, image.multiple).compute()

    def examples(self, dense: FrameRunner, compact: FrameRunner, image: ImageFormat) -> list[Example]:
        return [
            Example(
                name=sample.name,
                frame=sample.image,
                mask=sample.mask,
                dense=_ids(dense, sample.image, image.multiple),
                compact=_ids(compact, sample.image, image.multiple),
                ignore_index=self.data.ignore_index,
            )
            for sample in self.data.test[:SHOWN]
        ]

    def validation_answers(self, run: FrameRunner, image: ImageFormat) -> Iterator[Answers]:
        return self._answers(run, self.data.validation, image.multiple)

    def _count(self, run: FrameRunner, samples: Iterable[Sample], multiple: int) -> SegmentationMetrics:
        metrics = SegmentationMetrics(self.classes, self.data.ignore_index)
        for logits, masks in self._answers(run, samples, multiple):
            metrics.update(logits, masks)
        return metrics

    def _answers(self, run: FrameRunner, samples: Iterable[Sample], multiple: int) -> Iterator[Answers]:
        for sample in samples:
            height, width = sample.mask.shape
            logits = run(pad_to_multiple(sample.image, multiple)[None])
            yield logits[:, :, :height, :width], sample.mask[None].astype(np.int64)


def _ids(run: FrameRunner, image: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """The most likely class of every pixel of an image (H, W, C): (H, W)."""
    logits = run(pad_to_multiple(image, multiple)[None])[0]
    return np.asarray(logits.argmax(axis=0)[: image.shape[0], : image.shape[1]], np.uint8)
