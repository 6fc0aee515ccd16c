"""Random changes of a batch, with kornia: image and mask move together, only the image changes its colours.

All random numbers come from torch's global generator, so a seeded run repeats and a resumed one continues.
The mask is resampled by nearest neighbour, and what is moved in from outside of the crop is unlabelled; the image is
mirrored there instead of blackened, so that no edge appears which no camera makes.

Several ranks that share a batch draw the same numbers, those of the whole batch, and each applies what belongs to its
own images: together they see what one process would.
"""

from __future__ import annotations

from typing import cast

import kornia.augmentation as K
import torch
from kornia.augmentation.base import _AugmentationBase
from kornia.augmentation.container.params import ParamItem
from kornia.constants import DataKey, Resample, SamplePadding
from torch import Tensor, nn

from edgeslim.errors import InvariantError

from ..ranks import ALONE, Ranks
from ..recipe import AugmentSection

_OF_THE_CALL = ("order", "forward_input_shape")
"""What kornia draws or notes once for a whole batch."""


class Augment(nn.Module):
    """images (N, 3, h, w) float32 in [0, 1], masks (N, h, w) int64 -> the same, changed; every image differently.

    With every option off the tensors come back as they are, and no random number is drawn. ranks: whose images these
    are a part of.
    """

    def __init__(self, section: AugmentSection, ignore_index: int, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.ignore_index, self.ranks = ignore_index, ranks
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
        drawn = _drawn(self._steps, images, self.ranks)
        images, moved = self._steps(images, labels[:, None].to(images.dtype), params=drawn)
        labels = moved[:, 0].round().long()
        return images, torch.where(labels == 0, self.ignore_index, labels - 1)


class ImageAugment(nn.Module):
    """The same without masks: images (N, channels, h, w) float32 in [0, 1] -> the same, changed."""

    def __init__(self, section: AugmentSection, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.ranks = ranks
        steps = _steps(section)
        self._steps = K.AugmentationSequential(*steps, data_keys=["input"]) if steps else None

    def forward(self, images: Tensor) -> Tensor:
        if self._steps is None:
            return images
        changed: Tensor = self._steps(images, params=_drawn(self._steps, images, self.ranks))
        return changed


def _drawn(steps: K.AugmentationSequential, images: Tensor, ranks: Ranks) -> list[ParamItem] | None:
    """This rank's part of the random numbers for the batch of all ranks; None lets kornia draw for one process."""
    if ranks.world == 1:
        return None
    whole, own = torch.Size((ranks.world * len(images), *images.shape[1:])), ranks.own(len(images))
    items = []
    for item in steps.forward_parameters(whole):
        data = cast(dict[str, Tensor], item.data)
        numbers = {name: t for name, t in data.items() if name not in _OF_THE_CALL}
        if any(len(t) != whole[0] for t in numbers.values()):  # drawn for some images only: whose is whose?
            raise InvariantError(f"{item.name}: numbers of shapes { {n: tuple(t.shape) for n, t in numbers.items()} }")
        kept = {name: t for name, t in data.items() if name == "order"}
        shape = {"forward_input_shape": torch.tensor(images.shape)} if "forward_input_shape" in data else {}
        items.append(ParamItem(item.name, {**kept, **shape, **{name: t[own] for name, t in numbers.items()}}))
    return items


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
