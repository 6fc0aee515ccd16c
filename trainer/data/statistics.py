"""Mean and standard deviation of the training pixels, for the normalisation that ships with the model.

Counted exactly, in 256 bins per channel: the result does not depend on the order of the images.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgeslim.errors import DataError

from .samples import Sample

Triple = tuple[float, float, float]


def channel_statistics(samples: Iterable[Sample], ignore_index: int) -> tuple[Triple, Triple]:
    """(mean, standard deviation) of R, G, B scaled to [0, 1], over the labelled pixels.

    A channel that never changes has its deviation set to one grey level, so that dividing by it is safe.
    Raises DataError if no pixel is labelled.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    for sample in samples:
        labelled = sample.image[sample.mask != ignore_index]
        for channel in range(3):
            counts[channel] += np.bincount(labelled[:, channel], minlength=256)
    total = int(counts[0].sum())
    if total == 0:
        raise DataError("no pixel of the training images is labelled", "check the masks and data.ignore_index")
    levels = np.arange(256) / 255
    mean = counts @ levels / total
    variance = counts @ levels**2 / total - mean**2
    deviation = np.maximum(np.sqrt(np.maximum(variance, 0)), 1 / 255)
    return _triple(mean), _triple(deviation)


def _triple(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Triple:
    red, green, blue = values.tolist()
    return red, green, blue
