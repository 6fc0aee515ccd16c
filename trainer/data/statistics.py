"""Mean and standard deviation of the training pixels, for the normalisation that ships with the model.

Counted exactly, in 256 bins per channel: the result does not depend on the order of the images.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import DataError

from .labelled import LabelledImage
from .samples import Sample

Colours = tuple[float, ...]
"""One number a channel: red, green, blue, or grey alone."""


def channel_statistics(samples: Iterable[Sample], ignore_index: int) -> tuple[Colours, Colours]:
    """(mean, standard deviation) of R, G, B scaled to [0, 1], over the labelled pixels.

    A channel that never changes has its deviation set to one grey level, so that dividing by it is safe.
    Raises DataError if no pixel is labelled.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    for sample in samples:
        labelled = sample.image[sample.mask != ignore_index]
        for channel in range(3):
            counts[channel] += np.bincount(labelled[:, channel], minlength=256)
    if not counts.any():
        raise DataError("no pixel of the training images is labelled", "check the masks and data.ignore_index")
    return _moments(counts)


def image_statistics(images: Iterable[LabelledImage], channels: int) -> tuple[Colours, Colours]:
    """(mean, standard deviation) of each channel scaled to [0, 1], over all pixels of at least one image."""
    counts = np.zeros((channels, 256), dtype=np.int64)
    for labelled in images:
        for channel in range(channels):
            counts[channel] += np.bincount(labelled.image[..., channel].ravel(), minlength=256)
    return _moments(counts)


def _moments(counts: NDArray[np.int64]) -> tuple[Colours, Colours]:
    """counts: (channels, 256) pixels by value."""
    total = int(counts[0].sum())
    levels = np.arange(256) / 255
    mean = counts @ levels / total
    variance = counts @ levels**2 / total - mean**2
    deviation = np.maximum(np.sqrt(np.maximum(variance, 0)), 1 / 255)
    return tuple(mean.tolist()), tuple(deviation.tolist())
