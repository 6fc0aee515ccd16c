"""Random changes of a batch, with kornia: image and mask move together, only the image changes its colours.

All random numbers come from torch's global generator, so a seeded run repeats and a resumed one continues.
The mask is resampled by nearest neighbour, and what is moved in from outside of the crop is unlabelled; the image is
mirrored there instead of blackened, so that no edge appears which no camera makes.
"""

from __future__ import annotations

import kornia.augmentation as K
import torch
from kornia.augmentation.base import _AugmentationBase
from kornia.constants import DataKey, Resample, SamplePadding
from torch import Tensor, nn

from ..recipe import AugmentSection


class Augment(nn.Module):
    """images (N, 3, h, w) float32 in [0, 1], masks (N, h, w) int64 -> the same, changed; every image differently.

    With every option off the tensors come back as they are, and no random number is drawn.
    """

    def __init__(self, section: AugmentSection, ignore_index: int) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        outside = {"resample": Resample.NEAREST, "align_corners": False, "padding_mode": SamplePadding.ZEROS}
        steps = _steps(section)
        self._steps = (
            K.AugmentationSequential(*steps, data_keys=["input", "mask"], extra_args={DataKey.MASK: outside})
            if steps
            else None
        )

    def forward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        if self._steps is None:
            return images, masks
        # kornia fills with 0 what comes in from outside: make 0 mean unlabelled on the way through.
        labels = torch.where(masks == self.ignore_index, 0, masks + 1)
        images, moved = self._steps(images, labels[:, None].to(images.dtype))
        labels = moved[:, 0].round().long()
        return images, torch.where(labels == 0, self.ignore_index, labels - 1)


class ImageAugment(nn.Module):
    """The same without masks: images (N, channels, h, w) float32 in [0, 1] -> the same, changed."""

    def __init__(self, section: AugmentSection) -> None:
        super().__init__()
        steps = _steps(section)
        self._steps = K.AugmentationSequential(*steps, data_keys=["input"]) if steps else None

    def forward(self, images: Tensor) -> Tensor:
        changed: Tensor = images if self._steps is None else self._steps(images)
        return changed


def _steps(section: AugmentSection) -> list[_AugmentationBase]:
    steps: list[_AugmentationBase] = []
    if section.flip:
        steps.append(K.RandomHorizontalFlip(p=0.5))
    if section.rotate_degrees > 0 or section.scale > 0:
        zoom = (1 - section.scale, 1 + section.scale) if section.scale > 0 else None
        steps.append(K.RandomAffine(section.rotate_degrees, scale=zoom, padding_mode="reflection", p=1.0))
    if section.brightness > 0 or section.contrast > 0:
        steps.append(_BrightnessThenContrast(section.brightness, section.contrast, p=1.0))
    return steps


class _BrightnessThenContrast(K.ColorJitter):  # type: ignore[misc]  # kornia is untyped
    """kornia draws the order of the changes anew in every call; only its newest versions can be asked to keep one."""

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        parameters: dict[str, Tensor] = super().generate_parameters(batch_shape)
        return {**parameters, "order": torch.arange(4)}
