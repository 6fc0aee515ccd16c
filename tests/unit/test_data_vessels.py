"""The built-in images: the same from the same seed, plausible, and with labels that match the picture."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from edgeslim.errors import DataError
from edgeslim.trainer.data import build_data
from edgeslim.trainer.data.vessels import vessel_samples
from edgeslim.trainer.recipe_data import VesselsData

SIZE = (96, 96)


def test_parts_have_the_asked_counts_and_do_not_mix() -> None:
    data = build_data(VesselsData(name="vessels", train=10, test=4, size=SIZE), seed=1)
    assert [len(data.train), len(data.validation), len(data.test)] == [8, 2, 4]
    assert sorted([*data.train.names, *data.validation.names]) == [f"train-{i:05d}" for i in range(10)]
    assert not np.array_equal(data.test[0].image, vessel_samples("train", 1, SIZE, 0)[0].image)
    assert data.classes == ("background", "vessel") and data.ignore_index == 255


def test_an_image_depends_on_seed_and_index_alone() -> None:
    first, again = vessel_samples("train", 5, SIZE, 3), vessel_samples("train", 9, SIZE, 3)
    assert np.array_equal(first[4].image, again[4].image) and np.array_equal(first[4].mask, again[4].mask)
    assert not np.array_equal(first[4].image, first[3].image)
    assert not np.array_equal(first[4].image, vessel_samples("train", 5, SIZE, 4)[4].image)


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (192, 192), (200, 333)])
def test_any_size(size: tuple[int, int]) -> None:
    sample = vessel_samples("train", 1, size, 0)[0]
    assert sample.image.shape == (*size, 3) and sample.mask.shape == size
    assert set(np.unique(sample.mask)) == {0, 1, 255}


def test_images_look_like_what_they_claim() -> None:
    samples = list(vessel_samples("train", 12, (192, 192), 0))
    labelled = [s.mask != 255 for s in samples]
    share = np.mean([(s.mask == 1).sum() / inside.sum() for s, inside in zip(samples, labelled)])
    assert 0.06 < share < 0.13
    for sample, inside in zip(samples, labelled):
        assert 0.55 < inside.mean() < 0.80  # a disc in a square
        red, green, blue = sample.image[inside].mean(axis=0)
        assert red > green > blue
        assert sample.image[~inside].mean() < 40
        # Vessels absorb green; next to one another, vessel pixels are darker than their ground.
        assert sample.image[sample.mask == 1, 1].mean() < sample.image[sample.mask == 0, 1].mean()


def test_brightness_alone_does_not_find_the_vessels() -> None:
    """The best threshold on green, chosen in hindsight, stays far from a usable segmentation."""
    samples = list(vessel_samples("test", 8, (192, 192), 0))
    green = np.concatenate([s.image[s.mask != 255, 1] for s in samples])
    vessel = np.concatenate([s.mask[s.mask != 255] for s in samples]) == 1
    dice = [2 * (vessel & (green < t)).sum() / (vessel.sum() + (green < t).sum()) for t in range(30, 200, 5)]
    assert max(dice) < 0.35


def test_too_few_to_validate() -> None:
    with pytest.raises(DataError, match=r"2 images are too few to hold out 0\.9"):
        build_data(VesselsData(name="vessels", train=2, validation=0.9), seed=0)


def test_samples_travel_to_loader_processes() -> None:
    samples = vessel_samples("train", 2, SIZE, 0)
    assert np.array_equal(pickle.loads(pickle.dumps(samples))[1].image, samples[1].image)
