"""Classification: every image has one class."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeslim.bench.report.answers import AnswerExample, Guess
from edgeslim.runtime.manifest import TaskName

from ..classification_metrics import ClassificationMetrics
from ..data import ClassificationData, LabelledImages, image_statistics
from ..data.augment import ImageAugment
from ..data.image_draws import ImageDraws
from ..evaluate import FrameRunner, ImageFormat, module_runner, normalized
from ..losses import ClassificationLoss
from ..ranks import ALONE, Ranks
from ..recipe import Recipe
from ..task import NO_CLASS, Numbers, Scores, Task
from .protocol import Answers, known_scores

BATCH = 64
"""Images that are scored at once."""
LOOKED_AT = 1000
"""Test images from which the report's examples are chosen."""
SHOWN = 12
"""Examples in the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """See `Kind`. All images have one size, and are scored as they are; a class that none shows is refused earlier."""

    recipe: Recipe
    data: ClassificationData
    ranks: Ranks = ALONE
    name: ClassVar[TaskName] = "classification"
    assumed_multiple: ClassVar[int] = 1
    absent: ClassVar[tuple[str, ...]] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    @property
    def channels(self) -> int:
        return self.data.channels

    @property
    def skipped(self) -> tuple[str, ...]:
        return self.data.skipped

    @property
    def crop(self) -> tuple[int, int]:
        return self.recipe.augment.crop or self.data.size

    @property
    def training_images(self) -> int:
        """How many images are learnt from."""
        return len(self.data.train)

    def frame_size(self, multiple: int, part: str = "test") -> tuple[int, int]:
        return self.data.size

    def answer_shape(self, count: int, size: tuple[int, int]) -> tuple[int, ...]:
        return (count, len(self.classes))

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return image_statistics(self.data.train, self.channels)

    def digest(self) -> str:
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for part in (self.data.train, self.data.validation):
            part.update(digest)
        return digest.hexdigest()

    def frames(self, count: int, multiple: int) -> list[NDArray[np.uint8]]:
        return [labelled.image for labelled in self.data.validation[:count]]

    def training_frames(self, count: int, multiple: int) -> list[NDArray[np.uint8]]:
        return [labelled.image for labelled in self.data.train[:count]]

    def validation_set(self, multiple: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        images = self.data.validation
        return np.stack([labelled.image for labelled in images]), images.labels

    def task(self, image: ImageFormat) -> Task:
        section, augment = self.recipe.loss, ImageAugment(self.recipe.augment, self.ranks)

        def prepare(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            return normalized(augment(images.float() / 255), image), labels

        def evaluate(module: nn.Module) -> Numbers:
            mine = self.data.validation[self.ranks.rank :: self.ranks.world]
            metrics = self._count(module_runner(module, image), mine)
            metrics.add_up(self.ranks.total)
            return known_scores(metrics.compute(), "accuracy")

        return Task(
            draws=ImageDraws(self.data.train, self.crop, self.recipe.augment.padding, self.recipe.seed),
            prepare=prepare,
            loss=ClassificationLoss(section.cross_entropy, len(self.classes), section.label_smoothing),
            evaluate=evaluate,
            score="accuracy",
            ignore_index=NO_CLASS,
        )

    def score_test(self, run: FrameRunner, image: ImageFormat) -> Scores:
        return self._count(run, self.data.test).compute()

    def examples(self, dense: FrameRunner, compact: FrameRunner, image: ImageFormat) -> list[AnswerExample]:
        """Of the first test images those on which the nets disagree, then those where both are wrong, then others."""
        images = self.data.test[:LOOKED_AT]
        answers = [np.concatenate([_probabilities(run(f)) for f, _ in _batches(images)]) for run in (dense, compact)]
        said, labels = [a.argmax(axis=1) for a in answers], images.labels
        rank = np.where(said[0] != said[1], 0, np.where(said[1] != labels, 1, 2))
        chosen = np.argsort(rank, kind="stable")[:SHOWN]
        return [
            AnswerExample(
                name=images[i].name,
                frame=images[i].image,
                truth=images[i].label,
                dense=Guess(label=int(said[0][i]), probability=float(answers[0][i].max())),
                compact=Guess(label=int(said[1][i]), probability=float(answers[1][i].max())),
                looked_at=len(images),
                disagreements=int((said[0] != said[1]).sum()),
            )
            for i in chosen.tolist()
        ]

    def validation_answers(self, run: FrameRunner, image: ImageFormat) -> Iterator[Answers]:
        return ((run(frames), labels) for frames, labels in _batches(self.data.validation))

    def _count(self, run: FrameRunner, images: LabelledImages) -> ClassificationMetrics:
        metrics = ClassificationMetrics(self.classes)
        for frames, labels in _batches(images):
            metrics.update(run(frames), labels)
        return metrics


def _batches(images: LabelledImages) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Frames (n, h, w, channels) and labels (n,), BATCH at a time."""
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        yield np.stack([labelled.image for labelled in part]), part.labels


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the classes: (N, classes) -> the same."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)
