"""Scores against their definitions, torchmetrics and the exact ROC area."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, multiclass_jaccard_index

from edgeslim.errors import InvariantError
from edgeslim.trainer.metrics import BinnedAUC, SegmentationMetrics

IGNORE = 255
BINARY = ("ground", "thing")


def batch(seed: int, classes: int = 2, size: int = 20, noise: float = 1.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, classes, (3, size, size), generator=generator)
    logits = noise * torch.randn(3, classes, size, size, generator=generator)
    logits.scatter_add_(1, masks[:, None], torch.ones(3, 1, size, size))
    masks[torch.rand(3, size, size, generator=generator) < 0.2] = IGNORE
    return logits, masks


def scores(logits: Tensor, masks: Tensor, classes: tuple[str, ...] = BINARY) -> dict[str, float | None]:
    metrics = SegmentationMetrics(classes, IGNORE)
    metrics.update(logits, masks)
    return metrics.compute()


def test_binary_scores_by_definition() -> None:
    logits, masks = batch(0)
    labelled, found = masks != IGNORE, logits.argmax(1) == 1
    tp = int((found & (masks == 1)).sum())
    fp = int((found & (masks == 0)).sum())
    fn = int((~found & (masks == 1)).sum())
    tn = int((~found & (masks == 0)).sum())
    assert tp + fp + fn + tn == int(labelled.sum())
    got = scores(logits, masks)
    assert list(got) == ["dice", "iou", "miou", "auc", "sensitivity", "specificity", "accuracy"]
    assert got["dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-12)
    assert got["iou"] == pytest.approx(tp / (tp + fp + fn), abs=1e-12)
    assert got["miou"] == pytest.approx((tp / (tp + fp + fn) + tn / (tn + fp + fn)) / 2, abs=1e-12)
    assert got["sensitivity"] == pytest.approx(tp / (tp + fn), abs=1e-12)
    assert got["specificity"] == pytest.approx(tn / (tn + fp), abs=1e-12)
    assert got["accuracy"] == pytest.approx((tp + tn) / (tp + fp + fn + tn), abs=1e-12)


def test_many_classes_against_torchmetrics() -> None:
    logits, masks = batch(1, classes=4)
    got = scores(logits, masks, ("a", "b", "c", "d"))
    assert list(got) == ["dice", "miou", "accuracy", "iou_a", "iou_b", "iou_c", "iou_d"]
    per_class = multiclass_jaccard_index(logits, masks, 4, average="none", ignore_index=IGNORE)
    assert [got[f"iou_{c}"] for c in "abcd"] == pytest.approx(per_class.tolist(), abs=1e-6)
    assert got["miou"] == pytest.approx(float(per_class.mean()), abs=1e-6)
    dice = [2 * i / (1 + i) for i in per_class.tolist()]
    assert got["dice"] == pytest.approx(sum(dice) / 4, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 1.5, 8.0, 30.0]))
def test_binned_area_is_close_to_the_exact_one(seed: int, noise: float) -> None:
    logits, masks = batch(seed, noise=noise)
    labelled = masks != IGNORE
    # binary_auroc squeezes scores outside of [0, 1] through a sigmoid, which saturates: rank them first.
    margins = (logits[:, 1] - logits[:, 0])[labelled]
    ranks = margins.argsort().argsort().float() / margins.numel()
    exact = float(binary_auroc(ranks, masks[labelled]))
    assert scores(logits, masks)["auc"] == pytest.approx(exact, abs=1e-3)


def test_area_of_constant_and_perfect_scores() -> None:
    labels = torch.tensor([True, False, True, False])
    constant, perfect, wrong = BinnedAUC(), BinnedAUC(), BinnedAUC()
    constant.update(torch.zeros(4), labels)
    perfect.update(torch.tensor([9.0, -3.0, 1e30, float("-inf")]), labels)
    wrong.update(torch.tensor([-9.0, 3.0, float("nan"), float("inf")]), labels)
    assert constant.area() == 0.5 and perfect.area() == 1.0 and wrong.area() == 0.0
    assert float(perfect.compute()) == 1.0


def test_images_are_pooled_not_averaged() -> None:
    first, second = batch(1), batch(2, size=50)
    metrics = SegmentationMetrics(BINARY, IGNORE)
    metrics.update(*first)
    metrics.update(*second)
    logits = torch.cat([x[0].flatten(2).movedim(1, 0).flatten(1) for x in (first, second)], dim=1)
    masks = torch.cat([x[1].flatten() for x in (first, second)])
    assert metrics.compute() == scores(logits[None, :, :, None], masks[None, :, None])


def test_numpy_and_torch_and_half_agree() -> None:
    logits, masks = batch(3)
    metrics = SegmentationMetrics(BINARY, IGNORE)
    metrics.update(logits.numpy(), masks.numpy().astype(np.uint8))
    assert metrics.compute() == scores(logits, masks)
    metrics.reset()
    metrics.update(logits.bfloat16(), masks)
    assert metrics.compute()["dice"] == pytest.approx(scores(logits, masks)["dice"], abs=0.02)


def test_reset_forgets() -> None:
    metrics = SegmentationMetrics(BINARY, IGNORE)
    metrics.update(*batch(3))
    metrics.reset()
    metrics.update(*batch(4))
    assert metrics.compute() == scores(*batch(4))


def test_unlabelled_pixels_do_not_count() -> None:
    logits, masks = batch(5)
    changed = logits.clone()
    changed[:, 1][masks == IGNORE] = 1e9
    assert scores(changed, masks) == scores(logits, masks)


def test_nothing_labelled_is_none_everywhere() -> None:
    masks = batch(6)[1]
    for classes in (BINARY, ("a", "b", "c")):
        got = scores(torch.randn(3, len(classes), 20, 20), torch.full_like(masks, IGNORE), classes)
        assert set(got.values()) == {None}
    assert set(SegmentationMetrics(BINARY, IGNORE).compute().values()) == {None}


def test_no_foreground_at_all() -> None:
    masks = torch.zeros(1, 4, 4, dtype=torch.int64)
    silent = torch.stack([torch.ones(1, 4, 4), torch.zeros(1, 4, 4)], dim=1)
    got = scores(silent, masks)
    assert got["dice"] is None and got["iou"] is None and got["sensitivity"] is None and got["auc"] is None
    assert got["specificity"] == 1.0 and got["miou"] == 1.0 and got["accuracy"] == 1.0
    loud = scores(-silent, masks)
    assert loud["dice"] == 0.0 and loud["iou"] == 0.0 and loud["specificity"] == 0.0 and loud["sensitivity"] is None


def test_class_without_a_labelled_pixel_is_left_out_of_the_means() -> None:
    logits, masks = batch(7, classes=2)
    third = torch.cat([logits, torch.full_like(logits[:, :1], -100)], dim=1)
    got = scores(third, masks, ("a", "b", "c"))
    two = scores(logits, masks)
    assert got["iou_c"] is None and got["miou"] == pytest.approx(two["miou"], abs=1e-12)


def test_wrong_shapes_are_a_bug() -> None:
    logits, masks = batch(8)
    with pytest.raises(InvariantError, match="logits have shape"):
        SegmentationMetrics(("a", "b", "c"), IGNORE).update(logits, masks)
