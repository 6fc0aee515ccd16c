"""What a device counts with NumPy is what training counts with torchmetrics, for any logits and targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score, multiclass_jaccard_index

from edgeslim.runtime.validation import UNLABELLED, make_validation, score
from edgeslim.trainer.classification_metrics import ClassificationMetrics
from edgeslim.trainer.metrics import SegmentationMetrics

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60)
@given(seeds, st.integers(2, 6), st.integers(1, 5), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([1, 2, 100]))
def test_segmentation(seed: int, classes: int, count: int, known: float, levels: int) -> None:
    """levels: few of them make ties, as int8 does."""
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(count, classes, 3, 4)) * levels).round() / levels
    masks = rng.integers(0, classes, (count, 3, 4))
    masks[rng.random(masks.shape) > known] = UNLABELLED
    data = make_validation(np.zeros((count, 3, 4, 3), np.uint8), masks, "here")
    parts = iter(np.array_split(logits.astype(np.float32), range(2, count, 2)))
    metrics = SegmentationMetrics([str(c) for c in range(classes)], UNLABELLED)
    metrics.update(logits.astype(np.float32), masks)
    expected = metrics.compute()
    wanted = {name: expected[name] for name in ("accuracy", "dice", "miou") if expected[name] is not None}
    assert score(lambda images: next(parts), data, batch=2) == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=60)
@given(seeds, st.integers(1, 12), st.integers(1, 9), st.sampled_from([1, 2, 100]), st.booleans())
def test_classification(seed: int, classes: int, count: int, levels: int, broken: bool) -> None:
    rng = np.random.default_rng(seed)
    logits = ((rng.normal(size=(count, classes)) * levels).round() / levels).astype(np.float32)
    if broken:
        logits[rng.random(logits.shape) < 0.1] = np.nan
    labels = rng.integers(0, classes, count)
    data = make_validation(np.zeros((count, 3, 4, 3), np.uint8), labels, "here")
    metrics = ClassificationMetrics([str(c) for c in range(classes)])
    metrics.update(logits, labels)
    assert score(lambda images: logits, data, batch=count) == {"accuracy": metrics.compute()["accuracy"]}


def test_both_agree_with_torchmetrics() -> None:
    """A third opinion, where there are no ties."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, 9, 9, generator=generator)
    masks = torch.randint(0, 4, (6, 9, 9), generator=generator)
    got = score(
        lambda images: logits.numpy(), make_validation(np.zeros((6, 9, 9, 3), np.uint8), masks.numpy(), ""), batch=6
    )
    options = {"num_classes": 4, "average": "macro"}
    assert got["miou"] == pytest.approx(float(multiclass_jaccard_index(logits, masks, **options)), abs=1e-6)
    assert got["dice"] == pytest.approx(float(multiclass_f1_score(logits, masks, **options)), abs=1e-6)
    assert got["accuracy"] == pytest.approx(float(multiclass_accuracy(logits, masks, 4, average="micro")), abs=1e-6)
    labels = torch.randint(0, 4, (6,), generator=generator)
    flat = logits[:, :, 0, 0]
    own = score(
        lambda images: flat.numpy(), make_validation(np.zeros((6, 9, 9, 3), np.uint8), labels.numpy(), ""), batch=6
    )
    assert own["accuracy"] == pytest.approx(float(multiclass_accuracy(flat, labels, 4, average="micro")), abs=1e-6)


def test_a_tie_is_no_answer() -> None:
    """Two classes just as likely: whichever comes first in the file is not the better answer."""
    data = make_validation(np.zeros((2, 3, 4, 3), np.uint8), np.array([0, 1]), "here")
    assert score(lambda images: np.zeros((2, 2), np.float32), data, batch=2) == {"accuracy": 0.0}
