"""Draws are a function of (seed, index): the base of identical resumption."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from edgeslim.trainer.data import Sample
from edgeslim.trainer.data.draws import CropDraws


def sample(number: int, height: int = 40, width: int = 50) -> Sample:
    """Red is the image's number, green the row, blue the column; the mask is row % 2."""
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = number, np.arange(height)[:, None], np.arange(width)
    mask = np.broadcast_to(np.arange(height, dtype=np.uint8)[:, None] % 2, (height, width)).copy()
    return Sample(image=image, mask=mask, name=str(number))


def draws(count: int = 5, crop: tuple[int, int] = (16, 24), seed: int = 0, **size: int) -> CropDraws:
    return CropDraws([sample(i, **size) for i in range(count)], crop, seed, ignore_index=255)


def test_shapes_types_and_that_mask_follows_image() -> None:
    image, mask = draws()[3]
    assert image.shape == (3, 16, 24) and image.dtype == torch.uint8
    assert mask.shape == (16, 24) and mask.dtype == torch.int64
    assert torch.equal(mask, image[1].long() % 2)
    assert (image[2].diff(dim=1) == 1).all() and (image[1].diff(dim=0) == 1).all()


def test_every_epoch_sees_every_image_once_in_its_own_order() -> None:
    source = draws(count=7)
    order = [int(source[i][0][0, 0, 0]) for i in range(28)]
    epochs = [order[i : i + 7] for i in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_draws_do_not_depend_on_what_was_drawn_before() -> None:
    whole = [draws()[i] for i in range(20)]
    resumed = draws()
    for index in (17, 3, 12):
        assert all(torch.equal(a, b) for a, b in zip(resumed[index], whole[index]))


def test_another_seed_draws_otherwise() -> None:
    assert any(not torch.equal(draws(seed=1)[i][0], draws(seed=2)[i][0]) for i in range(5))


@pytest.mark.parametrize(("height", "width"), [(10, 50), (40, 9), (10, 9), (1, 1), (16, 24)])
def test_small_images_are_padded_with_unlabelled_black(height: int, width: int) -> None:
    image, mask = draws(height=height, width=width)[2]
    labelled = mask != 255
    assert image.shape == (3, 16, 24) and int(labelled.sum()) == min(height, 16) * min(width, 24)
    assert (image[:, ~labelled] == 0).all()
    assert torch.equal(mask[labelled], image[1][labelled].long() % 2)


def test_crops_without_a_label_are_drawn_again() -> None:
    blank = sample(0, 64, 64)
    blank.mask[:] = 255
    blank.mask[:32] = 1
    source = CropDraws([blank], (16, 16), 0, ignore_index=255)
    empty = sum(bool((source[i][1] == 255).all()) for i in range(300))
    assert empty < 10  # about a third of all crops have none, a third to the fifth remains
    blank.mask[:] = 255
    assert (source[0][1] == 255).all()


def test_negative_draws_are_refused() -> None:
    with pytest.raises(IndexError, match="count from 0"):
        draws()[-1]


def test_loader_takes_a_range_of_draws() -> None:
    loader = DataLoader(draws(), batch_size=4, sampler=range(8, 20))
    batches = list(loader)
    assert [tuple(image.shape) for image, _ in batches] == [(4, 3, 16, 24)] * 3
    assert torch.equal(batches[1][0][0], draws()[12][0])
