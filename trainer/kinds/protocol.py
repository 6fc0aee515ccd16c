"""What the pipeline asks a kind of task for, and all that it asks.

A kind holds a recipe's data and knows what an answer to an image is: a class a pixel, or a class. Stages, exports and
reports go through this protocol, so that nothing else has to know which kinds there are. Another kind (detection) is a
file here and a line in the registry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeslim.bench.report.answers import AnswerExample
from edgeslim.bench.report.examples import Example
from edgeslim.errors import DataError
from edgeslim.runtime.manifest import TaskName

from ..evaluate import FrameRunner, ImageFormat
from ..task import Numbers, Scores, Task

Answers = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Logits (N, classes, ...) and targets (N, ...)."""
Examples = Sequence[Example] | Sequence[AnswerExample]


class Kind(Protocol):
    """One recipe's data as one kind of task. Sizes are (height, width) in pixels."""

    @property
    def name(self) -> TaskName:
        """As the manifest states it."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the logits."""
        ...

    @property
    def channels(self) -> int:
        """Of an image: 3 (RGB) or 1 (grey)."""
        ...

    @property
    def skipped(self) -> tuple[str, ...]:
        """Files left out because they could not be decoded."""
        ...

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that no training image shows."""
        ...

    @property
    def assumed_multiple(self) -> int:
        """What sides are divisible by, for a net that has no `size_multiple`."""
        ...

    @property
    def crop(self) -> tuple[int, int]:
        """Size of a training image."""
        ...

    @property
    def training_images(self) -> int:
        """How many images are learnt from."""
        ...

    def frame_size(self, multiple: int, part: str = "test") -> tuple[int, int]:
        """Size in which the net sees the first image of a part ("test", "validation")."""
        ...

    def answer_shape(self, count: int, size: tuple[int, int]) -> tuple[int, ...]:
        """The logits' shape for `count` images of a size."""
        ...

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the training pixels scaled to [0, 1], a number a channel."""
        ...

    def digest(self) -> str:
        """SHA-256 of everything that is learnt from or chosen by: training and validation images with their labels."""
        ...

    def frames(self, count: int, multiple: int) -> list[NDArray[np.uint8]]:
        """The first validation images as a camera would deliver them: each (H, W, channels) uint8."""
        ...

    def training_frames(self, count: int, multiple: int) -> list[NDArray[np.uint8]]:
        """The first training images, not augmented, as a camera would deliver them; fewer where there are fewer."""
        ...

    def validation_set(self, multiple: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """All validation images as frames of one size (N, H, W, channels), and their targets, 255 where there is none.

        Targets are (N, H, W) class ids of pixels, or (N,) of images.
        """
        ...

    def task(self, image: ImageFormat) -> Task:
        """What `fit` trains."""
        ...

    def validation_answers(self, run: FrameRunner, image: ImageFormat) -> Iterator[Answers]:
        """Logits and targets of all validation images, not augmented, some at a time."""
        ...

    def score_test(self, run: FrameRunner, image: ImageFormat) -> Scores:
        """Scores on the test images; None where there was nothing to score."""
        ...

    def examples(self, dense: FrameRunner, compact: FrameRunner, image: ImageFormat) -> Examples:
        """Test images with what both nets say of them, for the report."""
        ...


def known_scores(scores: Scores, main: str) -> Numbers:
    """The scores that have a value. Raises DataError if the main one has none: nothing could be chosen by it."""
    known = {name: value for name, value in scores.items() if value is not None}
    if main not in known:
        raise DataError("the validation images have no label to score", "raise data.validation")
    return known
