"""Samples are decoded once and within bounds; splits partition; statistics are exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.errors import DataError, InvariantError
from edgeslim.trainer.data import Sample, Samples, channel_statistics
from edgeslim.trainer.data.split import split_indices


class Counting:
    """A loader that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, name: str) -> Sample:
        self.asked.append(name)
        return sample(name)


def sample(name: str = "a", side: int = 10) -> Sample:
    rng = np.random.default_rng(len(name))
    image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Sample(image=image, mask=np.zeros((side, side), dtype=np.uint8), name=name)


def test_nothing_is_decoded_until_asked_for_and_then_once() -> None:
    load = Counting()
    samples = Samples(["a", "b", "c"], load)
    assert len(samples) == 3 and load.asked == []
    assert samples[1].name == "b" and samples[1] is samples[1] and samples[-1].name == "c"
    assert load.asked == ["b", "c"]
    assert [s.name for s in samples] == ["a", "b", "c"] and load.asked == ["b", "c", "a"]


def test_memory_bound_is_kept() -> None:
    load = Counting()
    samples = Samples(["a", "b", "c"], load, cache_bytes=2 * 400)
    for _ in range(2):
        list(samples)
    assert load.asked == ["a", "b", "c", "c"]


def test_selection_shares_what_is_decoded() -> None:
    load = Counting()
    samples = Samples(["a", "b", "c"], load)
    list(samples)
    assert [s.name for s in samples.select([2, 0])] == ["c", "a"]
    assert samples[1:].names == ("b", "c")
    assert load.asked == ["a", "b", "c"]


def test_index_beyond_the_end() -> None:
    with pytest.raises(IndexError):
        Samples(["a"], Counting())[1]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8)),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)),
    ],
)
def test_a_sample_that_exists_is_valid(image: np.ndarray, mask: np.ndarray) -> None:
    with pytest.raises(InvariantError, match="a:"):
        Sample(image=image, mask=mask, name="a")


@given(st.integers(2, 500), st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_split_is_a_partition_of_the_asked_size(count: int, share: float, seed: int) -> None:
    if max(1, round(share * count)) >= count:
        with pytest.raises(DataError, match="too few"):
            split_indices(count, share, seed)
        return
    kept, held = split_indices(count, share, seed)
    assert sorted([*kept, *held]) == list(range(count))
    assert len(held) == max(1, round(share * count)) and len(kept) > 0
    assert (kept, held) == split_indices(count, share, seed)


def test_statistics_match_numpy_over_labelled_pixels() -> None:
    rng = np.random.default_rng(5)
    samples = [
        Sample(
            image=rng.integers(0, 256, (9, 7 + i, 3), dtype=np.uint8),
            mask=rng.choice(np.array([0, 1, 255], dtype=np.uint8), (9, 7 + i)),
            name=str(i),
        )
        for i in range(3)
    ]
    mean, deviation = channel_statistics(samples, 255)
    pixels = np.concatenate([s.image[s.mask != 255] for s in samples]) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(deviation, pixels.std(axis=0), rtol=0, atol=1e-12)


def test_constant_channel_has_a_safe_deviation() -> None:
    flat = Sample(image=np.full((3, 3, 3), 7, np.uint8), mask=np.zeros((3, 3), np.uint8), name="flat")
    assert channel_statistics([flat], 255)[1] == (1 / 255,) * 3


def test_statistics_of_nothing() -> None:
    empty = Sample(image=np.zeros((3, 3, 3), np.uint8), mask=np.full((3, 3), 255, np.uint8), name="empty")
    with pytest.raises(DataError, match="no pixel"):
        channel_statistics([empty], 255)
