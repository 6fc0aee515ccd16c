"""Penalties on the size of weights: l1, l2, whole filters, scales of batch norms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.errors import ConfigError
from edgeslim.trainer.regularizers import L0, L1, L2, BnScale, GroupLasso, Kernel, Regularizer, View, view_of

from .views import pull, random_kernels, seen

ALL: tuple[Regularizer, ...] = (L1(weight=0.3), L2(weight=0.3), GroupLasso(weight=0.3))


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.name)
def test_the_gradient_is_the_derivative(rule: Regularizer) -> None:
    assert torch.autograd.gradcheck(lambda *given: 2.0 * rule.penalty(seen(given)), random_kernels(away=0.1))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.0, 10.0))
def test_values_are_the_formulas(seed: int, weight: float) -> None:
    kernels = random_kernels(seed)
    wanted = {
        "l1": sum(w.abs().sum() for w in kernels),
        "l2": sum(w.square().sum() for w in kernels),
        "group_lasso": sum(math.sqrt(w[0].numel()) * w.flatten(1).norm(dim=1).sum() for w in kernels),
    }
    for rule in (L1(weight=weight), L2(weight=weight), GroupLasso(weight=weight)):
        torch.testing.assert_close(rule.penalty(seen(kernels)), torch.as_tensor(weight * wanted[rule.name]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 10.0))
def test_how_values_grow_with_the_weights(seed: int, factor: float) -> None:
    kernels = [w.detach() for w in random_kernels(seed)]
    larger = [factor * w for w in kernels]
    for rule, power in zip(ALL, (1, 2, 1)):
        torch.testing.assert_close(rule.penalty(seen(larger)), factor**power * rule.penalty(seen(kernels)))


def test_known_values() -> None:
    w = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert float(L1(weight=1.0).penalty(seen([w]))) == 7.0
    assert float(L2(weight=1.0).penalty(seen([w]))) == 25.0
    assert float(GroupLasso(weight=1.0).penalty(seen([w]))) == 10.0  # sqrt(4) * 5, and a filter of nothing
    w.requires_grad_()
    assert pull(GroupLasso(weight=1.0), seen([w]), w).flatten().tolist() == pytest.approx([1.2, 1.6] + [0] * 6)
    assert pull(L1(weight=1.0), seen([w]), w).tolist() == [[1, 1, 0, 0], [0] * 4]


def test_a_small_filter_is_pulled_as_much_as_a_large_one() -> None:
    w = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    w[1] *= 1e-6
    w.requires_grad_()
    sizes = pull(GroupLasso(weight=1.0), seen([w]), w).flatten(1).norm(dim=1)
    torch.testing.assert_close(sizes, torch.full((4,), math.sqrt(27), dtype=torch.float64))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_filters_of_a_transposed_convolution(groups: int) -> None:
    """Filter o makes channel o: silencing it silences that channel and no other."""
    torch.manual_seed(0)
    layer, images = nn.ConvTranspose2d(4, 8, 3, groups=groups, bias=False), torch.randn(1, 4, 5, 5)
    (kernel,) = view_of(layer).kernels
    assert kernel.filters().shape == (8, 4 // groups, 3, 3)
    for channel in (0, 3, 7):
        (touched,) = torch.autograd.grad(kernel.filters()[channel].sum(), [layer.weight])
        silenced = F.conv_transpose2d(images, layer.weight * (touched == 0), groups=groups)
        changed = (silenced - layer(images)).abs().amax((0, 2, 3)) > 1e-6
        assert changed.nonzero().flatten().tolist() == [channel]
        assert not silenced[0, channel].any()


def test_scales_of_batch_norms_and_nothing_else() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False), nn.GroupNorm(2, 4))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([1.0, -2.0, 0.0, 0.5]))
    value = BnScale(weight=0.1).penalty(view_of(net))
    assert float(value.detach()) == pytest.approx(0.35)
    value.backward()  # type: ignore[no-untyped-call]
    assert net[1].weight.grad is not None
    assert net[1].weight.grad.tolist() == pytest.approx([0.1, -0.1, 0.0, 0.1])
    assert [n for n, p in net.named_parameters() if p.grad is not None] == ["1.weight"]


@pytest.mark.parametrize("make", [L0, L1, L2])
def test_biases_and_norms_only_on_request(make: type[L1]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    for which, names in (("kernels", {"0.weight"}), ("all", {"0.weight", "0.bias", "1.weight"})):
        net.zero_grad()
        rule = make(parameters=which)  # type: ignore[arg-type]
        rule.penalty(view_of(net)).backward()  # type: ignore[no-untyped-call]
        touched = {n for n, p in net.named_parameters() if p.grad is not None and bool(p.grad.any())}
        assert touched == names
        assert rule.looks_at == ("kernels" if which == "kernels" else "parameters")


@pytest.mark.parametrize("rule", [*ALL, BnScale()], ids=lambda rule: rule.name)
def test_nothing_to_penalise(rule: Regularizer) -> None:
    assert float(rule.penalty(View())) == 0.0


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf, "1", True, None])
def test_a_weight_that_is_none(weight: object) -> None:
    for make in (L1, L2, GroupLasso, BnScale):
        with pytest.raises(
            ConfigError, match=f"{make().name}: weight is .*; it must be a finite number from 0"
        ) as caught:
            make(weight=weight)  # type: ignore[arg-type]
        assert caught.value.hint


def test_options_of_l0_are_checked_at_birth() -> None:
    with pytest.raises(ConfigError, match="l0: beta is 0; it must be a finite number above 0"):
        L0(beta=0)
    with pytest.raises(ConfigError, match="l0: layer_scale is 'cube'") as caught:
        L0(layer_scale="cube")  # type: ignore[arg-type]
    assert "sqrt, inverse, none" in caught.value.hint


def test_channels_last_kernels_are_the_same_kernels() -> None:
    w = torch.randn(4, 3, 3, 3)
    for rule in ALL:
        pulls: list[Tensor] = []
        for kernel in (w, w.to(memory_format=torch.channels_last)):
            kernel = kernel.clone().requires_grad_()
            pulls.append(pull(rule, View(kernels=[Kernel(weight=kernel)]), kernel))
        torch.testing.assert_close(*pulls)
