"""Training images by number, for classification: what `draws` does for segmentation.

With `padding` p the image gets a black border of p pixels, out of which a window of the crop's size is cut at random:
a shift by up to p pixels, the usual augmentation on small images.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .draws import EpochOrder, window
from .labelled import LabelledImages


class ImageDraws(Dataset[tuple[Tensor, Tensor]]):
    """draw index -> (image (channels, h, w) uint8, label () int64), (h, w) = crop. There is no last draw."""

    def __init__(self, images: LabelledImages, crop: tuple[int, int], padding: int, seed: int) -> None:
        self.images, self.crop, self.padding, self.seed = images, crop, padding, seed
        self._order = EpochOrder(len(images), seed)

    def __getitem__(self, draw: int) -> tuple[Tensor, Tensor]:
        labelled = self.images[self._order.position(draw)]
        image = labelled.image
        if self.padding or image.shape[:2] != self.crop:
            rng = np.random.default_rng([self.seed, draw])
            whole, image = image, np.zeros((*self.crop, image.shape[2]), np.uint8)
            rows, target_rows = self._window(rng, whole.shape[0], self.crop[0])
            columns, target_columns = self._window(rng, whole.shape[1], self.crop[1])
            image[target_rows, target_columns] = whole[rows, columns]
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1))
        return torch.from_numpy(pixels), torch.tensor(labelled.label)

    def _window(self, rng: np.random.Generator, length: int, crop: int) -> tuple[slice, slice]:
        """A window of one axis of the padded image, less its border: that is black like what it is copied into."""
        source, target = window(rng, length + 2 * self.padding, crop)
        start = source.start - self.padding
        low, high = max(start, 0), min(source.stop - self.padding, length)
        return slice(low, max(low, high)), slice(target.start + low - start, target.start + max(low, high) - start)
