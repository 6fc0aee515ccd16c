"""Augmentation: image and mask stay together, ids stay ids, torch's generator decides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edgeslim.trainer.data.augment import Augment
from edgeslim.trainer.recipe import AugmentSection

EVERYTHING = {"flip": True, "rotate_degrees": 40.0, "scale": 0.3, "brightness": 0.3, "contrast": 0.3}


def augment(**options: Any) -> Augment:
    return Augment(AugmentSection(**({"flip": False} | options)), ignore_index=255)


def batch(count: int = 6, size: int = 48) -> tuple[Tensor, Tensor]:
    """Blocks of 8x8 pixels, each of one class; the image shows the class as brightness 0, 0.5 or 1."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randint(0, 3, (count, 1, size // 8, size // 8), generator=generator).float()
    labels = F.interpolate(coarse, size=(size, size))
    return (labels / 2).repeat(1, 3, 1, 1), labels[:, 0].long()


def test_all_off_changes_nothing_and_draws_nothing() -> None:
    images, masks = batch()
    state = torch.get_rng_state()
    same_images, same_masks = augment()(images, masks)
    assert same_images is images and same_masks is masks
    assert torch.equal(torch.get_rng_state(), state)


def test_seeded_by_torch_alone() -> None:
    images, masks = batch()
    step = augment(**EVERYTHING)
    torch.manual_seed(5)
    first = step(images, masks)
    second = step(images, masks)
    torch.manual_seed(5)
    again = augment(**EVERYTHING)(images, masks)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], second[0])


def test_types_and_ranges() -> None:
    images, masks = augment(**EVERYTHING)(*batch())
    assert images.shape == (6, 3, 48, 48) and images.dtype == torch.float32
    assert masks.shape == (6, 48, 48) and masks.dtype == torch.int64
    assert images.min() >= 0 and images.max() <= 1
    assert set(masks.unique().tolist()) <= {0, 1, 2, 255}


@pytest.mark.parametrize("options", [{"flip": True}, {"rotate_degrees": 30.0}, {"scale": 0.3}])
def test_mask_moves_with_the_image(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    images, masks = augment(**options)(*batch(count=8))
    shown = (images[:, 0] * 2).round().long()
    labelled = masks != 255
    # Bilinear image and nearest mask differ only where two blocks meet.
    assert (shown == masks)[labelled].float().mean() > 0.85
    flat = F.max_pool2d(images[:, :1], 3, 1, 1) == -F.max_pool2d(-images[:, :1], 3, 1, 1)
    inside = F.max_pool2d((~labelled)[:, None].float(), 3, 1, 1) == 0
    both = (flat & inside)[:, 0]
    assert both.float().mean() > 0.3 and (shown == masks)[both].all()


def test_flip_mirrors_about_half_left_to_right() -> None:
    images, masks = batch(count=64)
    torch.manual_seed(0)
    flipped, flipped_masks = augment(flip=True)(images, masks)
    mirrored = [i for i in range(64) if torch.equal(flipped[i], images[i].flip(-1))]
    kept = [i for i in range(64) if torch.equal(flipped[i], images[i])]
    assert 16 < len(mirrored) < 48 and len(mirrored) + len(kept) == 64
    assert all(torch.equal(flipped_masks[i], masks[i].flip(-1)) for i in mirrored)


def test_what_comes_in_from_outside_is_unlabelled() -> None:
    images, masks = batch()
    torch.manual_seed(0)
    _, turned = augment(rotate_degrees=45.0)(images, torch.ones_like(masks))
    corners = torch.stack([turned[:, 0, 0], turned[:, -1, -1]])
    assert (corners == 255).any() and (turned[:, 16:32, 16:32] == 1).all()


def test_unlabelled_stays_unlabelled() -> None:
    images, masks = batch()
    _, changed = augment(**EVERYTHING)(images, torch.full_like(masks, 255))
    assert (changed == 255).all()


@pytest.mark.parametrize("options", [{"brightness": 0.5}, {"contrast": 0.5}])
def test_colour_changes_leave_the_mask_alone(options: dict[str, Any]) -> None:
    images, masks = batch()
    changed, same = augment(**options)(images, masks)
    assert torch.equal(same, masks) and not torch.equal(changed, images)
