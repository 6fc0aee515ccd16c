"""The losses: definitions, gradients, and that an unlabelled pixel has no say whatsoever."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from edgeslim.errors import InvariantError
from edgeslim.trainer.losses import SegmentationLoss, distillation, soft_dice_loss

IGNORE = 255


def batch(seed: int = 0, classes: int = 3, unlabelled: float = 0.3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, classes, 5, 6, generator=generator)
    target = torch.randint(0, classes, (2, 5, 6), generator=generator)
    target[torch.rand(2, 5, 6, generator=generator) < unlabelled] = IGNORE
    return logits, target


def loss(dice: float = 1.0, cross_entropy: float = 1.0, classes: int = 3) -> SegmentationLoss:
    return SegmentationLoss(dice, cross_entropy, classes, IGNORE)


def test_cross_entropy_part_is_the_mean_over_labelled_pixels() -> None:
    logits, target = batch()
    expected = F.cross_entropy(logits, target, ignore_index=IGNORE)
    torch.testing.assert_close(loss(dice=0.0)(logits, target), expected, rtol=1e-6, atol=1e-6)


def test_dice_part_by_hand() -> None:
    # Two labelled pixels, certain and right; one labelled, certain and wrong; one unlabelled.
    logits = torch.tensor([[[[50.0, -50.0, 50.0, 50.0]], [[-50.0, 50.0, -50.0, -50.0]]]])
    target = torch.tensor([[[0, 1, 1, IGNORE]]])
    # Class 0: overlap 1, found 2, there 1. Class 1: overlap 1, found 1, there 2.
    expected = 1 - (2 * 1 + 1) / (3 + 1)
    assert float(soft_dice_loss(logits, target, IGNORE)) == pytest.approx(expected, abs=1e-6)


def test_weights_add_up() -> None:
    logits, target = batch()
    parts = 0.3 * loss(1, 0)(logits, target) + 2.0 * loss(0, 1)(logits, target)
    torch.testing.assert_close(loss(0.3, 2.0)(logits, target), parts, rtol=1e-6, atol=1e-6)


def test_certain_and_right_costs_nothing() -> None:
    _, target = batch(unlabelled=0.0)
    logits = 100 * (2 * F.one_hot(target, 3).movedim(-1, 1).float() - 1)
    assert float(loss()(logits, target)) == pytest.approx(0, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.floats(0, 1))
def test_range(seed: int, classes: int, unlabelled: float) -> None:
    logits, target = batch(seed, classes, unlabelled)
    dice = float(soft_dice_loss(logits, target, IGNORE))
    whole = float(loss(classes=classes)(logits, target))
    assert 0 <= dice < 1 and math.isfinite(whole) and whole >= dice


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, -1e4, 1e30, float("inf")]))
def test_unlabelled_pixels_have_no_say(seed: int, value: float) -> None:
    """Whatever the net says there: same loss, same gradient elsewhere, none there."""
    logits, target = batch(seed)
    changed = logits.clone()
    changed[:, 1][target == IGNORE] = value
    results = []
    for given_logits in (logits, changed):
        leaf = given_logits.requires_grad_()
        value_of_loss = loss()(leaf, target)
        (gradient,) = torch.autograd.grad(value_of_loss, leaf)
        results.append((value_of_loss.detach(), gradient))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert (results[1][1].movedim(1, -1)[target == IGNORE] == 0).all()


def test_no_labelled_pixel_is_zero_with_zero_gradient() -> None:
    logits, target = batch(unlabelled=1.1)
    leaf = logits.requires_grad_()
    value = loss()(leaf, target)
    torch.autograd.backward(value)
    assert float(value.detach()) == 0 and leaf.grad is not None and (leaf.grad == 0).all()


def test_absent_class_is_left_out_of_the_mean() -> None:
    logits, target = batch(classes=3, unlabelled=0.0)
    target.clamp_(max=1)
    with_third = soft_dice_loss(torch.cat([logits[:, :2], logits[:, 2:] - 200], dim=1), target, IGNORE)
    torch.testing.assert_close(with_third, soft_dice_loss(logits[:, :2], target, IGNORE), rtol=1e-5, atol=1e-6)


def test_gradient_is_the_numerical_one() -> None:
    """soft_dice_loss keeps float64, so that finite differences can check it."""
    logits, target = batch()
    leaf = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_dice_loss(x, target, IGNORE), (leaf,), atol=1e-7, rtol=1e-5)


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.zeros(1, 2, 300, 300, dtype=torch.float16)  # 90,000 pixels: over float16's largest number
    target = torch.zeros(1, 300, 300, dtype=torch.int64)
    value = loss(classes=2)(logits, target)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(math.log(2) + 1 - 2 * 0.5 / 1.5, abs=1e-4)


def test_wrong_shapes_are_a_bug() -> None:
    logits, target = batch()
    with pytest.raises(InvariantError, match="logits have shape"):
        loss(classes=2)(logits, target)
    with pytest.raises(InvariantError, match="logits have shape"):
        loss()(logits[:, :, 1:], target)


def test_distillation_is_kl_times_temperature_squared() -> None:
    student, teacher = batch(1)[0], batch(2)[0]
    temperature = 3.0
    p, q = (teacher / temperature).softmax(1), (student / temperature).softmax(1)
    expected = temperature**2 * (p * (p.log() - q.log())).sum(1)
    torch.testing.assert_close(distillation(student, teacher, temperature), expected.mean(), rtol=1e-5, atol=1e-6)
    mask = torch.zeros(2, 5, 6, dtype=torch.bool)
    mask[0, :2] = True
    masked = distillation(student, teacher, temperature, mask)
    torch.testing.assert_close(masked, expected[mask].mean(), rtol=1e-5, atol=1e-6)


def test_distillation_ignores_even_infinite_logits_where_not_valid() -> None:
    student, teacher = batch(1)[0], batch(2)[0]
    mask = torch.zeros(2, 5, 6, dtype=torch.bool)
    mask[:, 1:3] = True
    expected = distillation(student, teacher, 2.0, mask)
    student[:, 0][~mask] = teacher[:, 1][~mask] = float("inf")
    leaf = student.requires_grad_()
    value = distillation(leaf, teacher, 2.0, mask)
    (gradient,) = torch.autograd.grad(value, leaf)
    assert torch.equal(value.detach(), expected)
    assert gradient.isfinite().all() and (gradient.movedim(1, -1)[~mask] == 0).all()


def test_distillation_of_a_twin_is_zero_and_the_teacher_gets_no_gradient() -> None:
    teacher = batch(1)[0].requires_grad_()
    student = batch(1)[0].requires_grad_()
    value = distillation(student, teacher, 2.0)
    torch.autograd.backward(value)
    assert float(value.detach()) == pytest.approx(0, abs=1e-6) and teacher.grad is None
    assert student.grad is not None and student.grad.abs().max() < 1e-6


def test_distillation_without_a_valid_pixel() -> None:
    student, teacher = batch(1)[0].requires_grad_(), batch(2)[0]
    value = distillation(student, teacher, 2.0, torch.zeros(2, 5, 6, dtype=torch.bool))
    torch.autograd.backward(value)
    assert float(value.detach()) == 0 and student.grad is not None and (student.grad == 0).all()


def test_distillation_of_different_shapes_is_a_bug() -> None:
    with pytest.raises(InvariantError):
        distillation(batch(classes=2)[0], batch(classes=3)[0], 2.0)
