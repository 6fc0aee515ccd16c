"""A data set of images with one class each: arrays of numbers, never a Python object an image.

`LabelledImages` is a choice of positions in a source, which hands out pixels by number: out of an array in memory, a
file mapped into it, or a file decoded on demand. A million images cost their labels and positions, a few megabytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import DataError, InvariantError


class ImageSource(Protocol):
    """Images of one size by number."""

    def image(self, index: int) -> NDArray[np.uint8]:
        """(h, w, channels) uint8, RGB or grey."""
        ...

    def name(self, index: int) -> str:
        """What a person finds the image by."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledImage:
    """One image and its class. image: (h, w, channels) uint8. label: the class's position among the classes."""

    image: NDArray[np.uint8]
    label: int
    name: str


class LabelledImages(Sequence[LabelledImage]):
    """Some images of a source. labels: (images of the source,) integers; indices: which of them, all if None."""

    def __init__(
        self, source: ImageSource, labels: NDArray[np.integer], indices: NDArray[np.int64] | None = None
    ) -> None:
        self._source, self._labels = source, labels
        self._indices = np.arange(len(labels), dtype=np.int64) if indices is None else indices

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) the classes of these images."""
        return self._labels[self._indices].astype(np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> LabelledImage: ...
    @overload
    def __getitem__(self, index: slice) -> LabelledImages: ...
    def __getitem__(self, index: int | slice) -> LabelledImage | LabelledImages:
        if isinstance(index, slice):
            return LabelledImages(self._source, self._labels, self._indices[index])
        place = int(self._indices[index])
        return LabelledImage(
            image=self._source.image(place), label=int(self._labels[place]), name=self._source.name(place)
        )

    def select(self, positions: Iterable[int] | NDArray[np.int64]) -> LabelledImages:
        """The images at `positions`, in that order."""
        chosen = np.fromiter(positions, np.int64) if not isinstance(positions, np.ndarray) else positions
        return LabelledImages(self._source, self._labels, self._indices[chosen])

    def update(self, digest: hashlib._Hash) -> None:
        """Add labels and pixels to a digest."""
        digest.update(self.labels.tobytes())
        for index in self._indices.tolist():
            digest.update(self._source.image(index).tobytes())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassificationData:
    """A data set ready for training. Every choice is made on `validation`; `test` is read once, at the end.

    size: (height, width) of every image.  channels: 3 (RGB) or 1 (grey).  skipped: files left out because they could
    not be decoded (`on_error: skip`).
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    classes: tuple[str, ...]
    size: tuple[int, int]
    channels: int
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = (*self.size, self.channels)
        for part in (self.train, self.validation, self.test):
            if part[0].image.shape != shape:
                raise InvariantError(f"{part[0].name} is {part[0].image.shape}, not {shape}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayImages:
    """ImageSource of an array (n, h, w, channels) uint8, in memory or mapped. prefix: before the number in names."""

    pixels: NDArray[np.uint8]
    prefix: str

    def image(self, index: int) -> NDArray[np.uint8]:
        """A copy, so that nobody holds on to the whole."""
        return np.array(self.pixels[index])

    def name(self, index: int) -> str:
        """Prefix and number."""
        return f"{self.prefix}-{index:05d}"


def check_every_class(labels: NDArray[np.integer], classes: Sequence[str], where: Path) -> None:
    """Raise DataError unless every class has an image in the training data at `where`."""
    counts = np.bincount(labels, minlength=len(classes))
    missing = [name for name, count in zip(classes, counts) if count == 0]
    if missing:
        raise DataError(
            f"{where}: no training image of {len(missing)} of {len(classes)} classes: {', '.join(missing[:5])}",
            "a net cannot learn a class that it never sees: add images, or leave the class out",
        )
