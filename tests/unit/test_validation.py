"""Validation sets: written and read back, refused where they fit nothing, scored by definition."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeslim.errors import DataError
from edgeslim.runtime import TensorSpec
from edgeslim.runtime.validation import (
    UNLABELLED,
    check_validation,
    main_score,
    make_validation,
    read_validation,
    score,
    validation_bytes,
)

from .conftest import build_manifest

FRAMES = np.zeros((2, 8, 16, 3), np.uint8)
MASKS = np.zeros((2, 8, 16), np.int64)


def test_a_set_survives_its_file(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).integers(0, 2, MASKS.shape)
    masks[0, :3] = UNLABELLED
    (tmp_path / "v.npz").write_bytes(validation_bytes(FRAMES, masks))
    found = read_validation(tmp_path / "v.npz")
    assert len(found) == 2 and np.array_equal(found.targets, masks)
    assert found.sha256 == make_validation(FRAMES, masks.astype(np.uint8), "here").sha256
    masks[1, 0, 0] ^= 1
    assert found.sha256 != make_validation(FRAMES, masks, "here").sha256


def test_a_class_above_255_is_a_class(tmp_path: Path) -> None:
    """ImageNet has 1,000: what is "unlabelled" in a mask is an answer of an image."""
    labels = np.array([UNLABELLED, 999])
    (tmp_path / "v.npz").write_bytes(validation_bytes(FRAMES, labels))
    found = read_validation(tmp_path / "v.npz")
    assert found.targets.tolist() == [255, 999]
    assert score(lambda images: np.eye(1000, dtype=np.float32)[[255, 999]], found, batch=2) == {"accuracy": 1.0}


@pytest.mark.parametrize(
    ("frames", "targets", "said"),
    [
        (FRAMES.astype(np.float32), MASKS, "frames are float32"),
        (FRAMES[0], MASKS, "frames are uint8 \\[8, 16, 3\\]"),
        (FRAMES[:0], MASKS[:0], "frames are uint8 \\[0"),
        (FRAMES, MASKS.astype(np.float32), "targets are float32"),
        (FRAMES, MASKS[:1], "targets are int64 \\[1, 8, 16\\]"),
        (FRAMES, MASKS[:, :4], "targets are int64 \\[2, 4, 16\\]"),
    ],
)
def test_what_does_not_belong_together_is_refused(frames: NDArray, targets: NDArray, said: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError, match=f"here: {said}"):
        make_validation(frames, targets, "here")


@pytest.mark.parametrize(
    ("frames", "targets", "said"),
    [
        (FRAMES, np.zeros(2, np.int64), "targets \\[2\\]"),
        (FRAMES[:, :7], MASKS[:, :7], "multiples of 8"),
        (FRAMES[..., :1], MASKS, "has \\[2, 8, 16, 1\\]"),
        (FRAMES, MASKS + 2, "a target is class 2, the net has 2"),
        (FRAMES, MASKS - 1, "a target is class -1"),
        (FRAMES, MASKS + UNLABELLED, "no answer to score by"),
    ],
)
def test_what_a_net_cannot_be_scored_on_is_refused_at_once(frames: NDArray, targets: NDArray, said: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError, match=said):
        check_validation(make_validation(frames, targets, "here"), build_manifest(), "a.bundle")


def test_fixed_sizes_must_fit() -> None:
    fixed = TensorSpec(name="frame", dtype="uint8", shape=("N", 16, 16, 3), layout="NHWC")
    manifest = dataclasses.replace(build_manifest(), inputs=(fixed,))
    with pytest.raises(DataError, match=r"takes frames \['N', 16, 16, 3\]"):
        check_validation(make_validation(FRAMES, MASKS, "here"), manifest, "a.bundle")
    check_validation(make_validation(FRAMES, MASKS, "here"), build_manifest(), "a.bundle")


def test_scores_by_definition_and_whatever_the_batch() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 4, 6, 3), np.uint8)
    masks = rng.integers(0, 2, (5, 4, 6))
    masks[rng.random(masks.shape) < 0.2] = UNLABELLED
    data = make_validation(frames, masks, "here")

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.moveaxis(images[..., :2].astype(np.float32), 3, 1)

    found, known = frames[..., 1] > frames[..., 0], masks != UNLABELLED
    tp, fp = int((found & (masks == 1)).sum()), int((found & (masks == 0)).sum())
    fn = int((~found & (masks == 1)).sum())
    got = score(run, data, batch=2)
    assert got["dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-12)
    assert got["accuracy"] == pytest.approx(((found == masks) & known).sum() / known.sum(), abs=1e-12)
    assert got == score(run, data) == score(run, data, batch=99)
    assert main_score(got) == "dice" and main_score({"accuracy": 1.0}) == "accuracy" and main_score({}) is None


def test_a_single_class_has_no_foreground() -> None:
    got = score(lambda images: np.zeros((len(images), 1, 8, 16), np.float32), make_validation(FRAMES, MASKS, "here"))
    assert got == {"accuracy": 1.0, "miou": 1.0}


def test_answers_of_another_form_are_refused() -> None:
    masks, labels = (make_validation(FRAMES, targets, "here") for targets in (MASKS, MASKS[:, 0, 0]))
    for data, shape in ((masks, (1, 2)), (masks, (1, 2, 8, 8)), (labels, (1, 2, 8, 16)), (labels, (1,))):
        with pytest.raises(DataError, match="the net answers"):
            score(lambda images, shape=shape: np.zeros(shape, np.float32), data)  # type: ignore[misc]
    with pytest.raises(DataError, match="a target is class 0, the net has"):
        score(lambda images: np.zeros((1, 0), np.float32), labels)
