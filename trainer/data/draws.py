"""Training crops by number: draw 1234 is the same crop in every run, process and resumption.

A run of n images sees each image once per epoch of n draws, in an order of that epoch's own. Order and crop are
functions of (seed, draw) alone, so training resumed at step s continues with draws s * batch_size, ... and nothing
about the data has to be saved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .samples import Sample

_TRIES = 5


class EpochOrder:
    """Which of `count` images a draw shows: each once per epoch, in an order of that epoch's own."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def position(self, draw: int) -> int:
        """The image's position. Raises IndexError for a negative draw."""
        if draw < 0:
            raise IndexError(f"draw {draw}: draws count from 0")
        epoch, place = divmod(draw, self._count)
        if epoch != self._epoch:
            # The third number keeps this stream apart from the crops' [seed, draw].
            self._order = np.random.default_rng([self._seed, epoch, 1]).permutation(self._count)
            self._epoch = epoch
        return int(self._order[place])


class CropDraws(Dataset[tuple[Tensor, Tensor]]):
    """draw index -> (image (3, h, w) uint8, mask (h, w) int64), (h, w) = crop. There is no last draw.

    Give a loader its indices: `DataLoader(draws, batch_size=8, sampler=range(first, last))`.
    An image smaller than the crop lies somewhere in a black, unlabelled frame. A crop without a labelled pixel
    teaches nothing, so up to four others are tried in its place.
    """

    def __init__(self, samples: Sequence[Sample], crop: tuple[int, int], seed: int, ignore_index: int) -> None:
        self.samples, self.crop, self.seed, self.ignore_index = samples, crop, seed, ignore_index
        self._order = EpochOrder(len(samples), seed)

    def __getitem__(self, draw: int) -> tuple[Tensor, Tensor]:
        sample = self.samples[self._order.position(draw)]
        rng = np.random.default_rng([self.seed, draw])
        for _ in range(_TRIES):
            rows, target_rows = window(rng, sample.mask.shape[0], self.crop[0])
            columns, target_columns = window(rng, sample.mask.shape[1], self.crop[1])
            labels = sample.mask[rows, columns]
            if np.any(labels != self.ignore_index):
                break
        image = np.zeros((3, *self.crop), dtype=np.uint8)
        mask = np.full(self.crop, self.ignore_index, dtype=np.int64)
        image[:, target_rows, target_columns] = sample.image[rows, columns].transpose(2, 0, 1)
        mask[target_rows, target_columns] = labels
        return torch.from_numpy(image), torch.from_numpy(mask)


def window(rng: np.random.Generator, length: int, crop: int) -> tuple[slice, slice]:
    """A random window of one axis: where to read in the image, and where that goes in the crop."""
    offset = int(rng.integers(abs(length - crop) + 1))
    if length >= crop:
        return slice(offset, offset + crop), slice(0, crop)
    return slice(0, length), slice(offset, offset + length)
