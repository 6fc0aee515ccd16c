"""The l0 penalty in closed form against autograd on the formula, and what it acts on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeslim.trainer.models.unet import UNet
from edgeslim.trainer.recipe_regularizers import L0Regularizer
from edgeslim.trainer.regularizers import L0, Kernel, View, build_regularizer, view_of
from edgeslim.trainer.regularizers.l0 import LayerScale, layer_scales

SHAPES = ((4, 3, 3, 3), (8, 4, 1, 1), (5, 8), (1, 1), (2, 6, 2, 2))
LAWS: tuple[LayerScale, ...] = ("sqrt", "inverse", "none")


def weights(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Kernels of several shapes; an eighth of the elements is exactly zero."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES]
    return [(w * (torch.rand(w.shape, generator=generator) > 0.125)).requires_grad_() for w in made]


def seen(tensors: Sequence[Tensor]) -> View:
    return View(kernels=[Kernel(weight=w) for w in tensors])


def kernels(net: nn.Module) -> list[Tensor]:
    return [k.weight for k in view_of(net).kernels]


def naive(rule: L0, tensors: list[Tensor]) -> Tensor:
    """The formula as it stands in the docstring, for autograd."""
    mean = sum(w.numel() for w in tensors) / len(tensors)
    scale = {"sqrt": lambda n: (n / mean) ** 0.5, "inverse": lambda n: mean / n, "none": lambda n: 1.0}
    total = torch.zeros((), dtype=tensors[0].dtype)
    for w in tensors:
        surrogate = (1 - torch.exp(-rule.beta * w.abs())).sum()
        total = total + rule.alpha * scale[rule.layer_scale](w.numel()) * surrogate + rule.l2 * w.square().sum()
    return total


@pytest.mark.parametrize("law", LAWS)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.0, 1e-2), st.floats(0.1, 50.0), st.floats(0.0, 1e-2), st.floats(-3.0, 1e6))
def test_value_and_gradient_are_those_of_the_formula(
    law: LayerScale, seed: int, alpha: float, beta: float, l2: float, upstream: float
) -> None:
    rule = L0(alpha=alpha, beta=beta, l2=l2, layer_scale=law)
    ours, theirs = weights(seed), weights(seed)
    value, wanted = rule.penalty(seen(ours)), naive(rule, theirs)
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-14)
    (upstream * value).backward()  # type: ignore[no-untyped-call]
    (upstream * wanted).backward()
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12 * max(1.0, abs(upstream)))


@pytest.mark.parametrize("law", LAWS)
def test_the_gradient_is_the_derivative(law: LayerScale) -> None:
    rule = L0(alpha=0.3, beta=2.0, l2=0.1, layer_scale=law)
    tensors = [
        torch.randn(s, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i, s in enumerate(SHAPES)
    ]
    away = [(w + 0.1 * w.sign()).requires_grad_() for w in tensors]  # |w| has a kink at zero
    assert torch.autograd.gradcheck(lambda *given: 3.0 * rule.penalty(seen(given)), away)


def test_the_pull_is_strongest_at_zero_and_none_at_it() -> None:
    rule = L0(alpha=1.0, beta=5.0, l2=0.0)
    w = torch.tensor([[0.0, 1e-4, 0.1, 1.0, -0.1]], dtype=torch.float64, requires_grad=True)
    rule.penalty(seen([w])).backward()  # type: ignore[no-untyped-call]
    assert w.grad is not None
    zero, near, middle, far, negative = w.grad[0].tolist()
    assert zero == 0.0
    assert near == pytest.approx(5.0, rel=1e-3)
    assert near > middle > far > 0.0
    assert negative == -middle


def test_value_counts_the_weights_that_matter() -> None:
    rule = L0(alpha=1.0, beta=1e4, l2=0.0, layer_scale="none")
    assert float(rule.penalty(seen([torch.tensor([[0.0, 1.0, -2.0, 0.0, 0.5]])]))) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("law", "wanted"), [("sqrt", [0.5**0.5, 1.0, 1.5**0.5]), ("inverse", [2.0, 1.0, 2 / 3]), ("none", [1.0, 1.0, 1.0])]
)
def test_layer_scales_are_relative_to_the_mean_size(law: LayerScale, wanted: list[float]) -> None:
    assert layer_scales([10, 20, 30], law) == pytest.approx(wanted)
    assert layer_scales([], law) == []


def test_gradients_add_up_with_the_loss() -> None:
    rule = L0(alpha=1e-2, beta=3.0, l2=1e-2)
    w = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    (alone,) = torch.autograd.grad(rule.penalty(seen([w])), [w])
    (both,) = torch.autograd.grad(w.square().sum() + rule.penalty(seen([w])), [w])
    torch.testing.assert_close(both, alone + 2 * w.detach())


def test_a_kernel_in_channels_last_is_the_same_kernel() -> None:
    rule = L0(alpha=1e-2, beta=3.0, l2=1e-2)
    plain = torch.randn(4, 3, 3, 3)
    last = plain.to(memory_format=torch.channels_last)
    grads = [torch.autograd.grad(rule.penalty(seen([k.requires_grad_()])), [k])[0] for k in (plain, last)]
    torch.testing.assert_close(*grads)
    assert grads[1].stride() == last.stride()


def test_the_weights_themselves_stay() -> None:
    tensors = weights()
    before = [w.detach().clone() for w in tensors]
    L0(alpha=1.0).penalty(seen(tensors)).backward()  # type: ignore[no-untyped-call]
    assert all(torch.equal(a.detach(), b) for a, b in zip(tensors, before))


def test_nothing_to_penalise() -> None:
    assert float(L0().penalty(View())) == 0.0


def test_only_kernels_are_penalised() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.PReLU(4),
        nn.ConvTranspose2d(4, 4, 2),
        nn.GroupNorm(2, 4),
        nn.Conv1d(4, 4, 1, bias=False),
        nn.LayerNorm(4),
        nn.Linear(4, 2),
    )
    assert [id(k) for k in kernels(net)] == [id(net[i].weight) for i in (0, 3, 5, 7)]
    L0(alpha=1e-3).penalty(view_of(net)).backward()  # type: ignore[no-untyped-call]
    for name, parameter in net.named_parameters():
        touched = name in ("0.weight", "3.weight", "5.weight", "7.weight")
        assert (parameter.grad is not None and bool(parameter.grad.any())) is touched, name


def test_shared_and_frozen_kernels() -> None:
    shared, frozen = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    twin = nn.Conv2d(4, 4, 1)
    twin.weight = shared.weight
    frozen.weight.requires_grad_(False)
    assert [id(k) for k in kernels(nn.Sequential(shared, frozen, twin, shared))] == [id(shared.weight)]


def test_every_kernel_of_a_unet() -> None:
    net = UNet(width=4, depth=1)
    names = {id(p): n for n, p in net.named_parameters()}
    wanted = {n for n, p in net.named_parameters() if p.ndim == 4}
    assert {names[id(k)] for k in kernels(net)} == wanted


def test_a_regularizer_from_a_recipe() -> None:
    section = L0Regularizer(name="l0", alpha=1e-5, beta=7.0, l2=1e-3, layer_scale="inverse")
    assert build_regularizer(section) == L0(alpha=1e-5, beta=7.0, l2=1e-3, layer_scale="inverse")
    assert build_regularizer(L0Regularizer(name="l0")) == L0()
