"""Counted gradients: of kernels, of feature maps, and the surrogates that stand in for the count."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgeslim.errors import ConfigError
from edgeslim.trainer.models.registry import build_model
from edgeslim.trainer.regularizers import GradientCount, View
from edgeslim.trainer.regularizers.feature_maps import caught_maps
from edgeslim.trainer.regularizers.gradient_count import kernel_differences, map_differences

from .views import random_kernels, seen

FORMS = ("exponential", "splitting")


def sharp(form: str, on: str = "kernel") -> GradientCount:
    return GradientCount(weight=1.0, on=on, form=form, beta=1e9, beta_end=1e9)  # type: ignore[arg-type]


def count(differences: Tensor) -> int:
    return int((differences.abs().sum(0) > 0).sum())


@pytest.mark.parametrize(
    ("kernel", "wanted"),
    [
        (torch.zeros(1, 1, 3, 3), 0),
        (torch.ones(1, 1, 3, 3), 11),  # its outline: of 16 positions the 4 inside and 1 corner see nothing change
        (torch.eye(3).view(1, 1, 3, 3), 9),
        (torch.ones(1, 1, 1, 3), 7),
        (torch.ones(1, 4, 1, 1), 2),  # along the input channels it begins and ends
        (torch.tensor([[1.0, 1.0, 2.0, 0.0]]), 3),
        (torch.ones(1, 1, 3), 2),
    ],
)
def test_counts_of_kernels(kernel: Tensor, wanted: int) -> None:
    assert count(kernel_differences(kernel)) == wanted
    for form in FORMS:
        value = sharp(form).penalty(seen([3.0 * kernel]))
        assert float(value) == pytest.approx(wanted / kernel.numel())


@pytest.mark.parametrize(
    ("maps", "wanted"),
    [
        (torch.full((2, 3, 4, 4), 5.0), 0),  # a constant map has no gradients: no boundary here
        (torch.arange(4.0).view(1, 1, 1, 4), 3),
        (torch.arange(4.0).view(1, 1, 4, 1).expand(1, 2, 4, 4), 24),
        (torch.tensor([[0.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2), 2),
        (torch.randn(3, 5), 0),  # a vector has no positions
    ],
)
def test_counts_of_feature_maps(maps: Tensor, wanted: int) -> None:
    assert map_differences(maps).shape[1:] == maps.shape
    assert count(map_differences(maps)) == wanted
    for form in FORMS if maps.ndim > 2 else ():
        value = sharp(form, "feature").penalty(View(maps=[maps]))
        assert float(value) == pytest.approx(wanted / maps.numel())


def test_every_layer_counts_alike_whatever_its_size() -> None:
    small, large = torch.ones(1, 4, 1, 1), torch.zeros(8, 8, 3, 3)
    assert float(sharp("splitting").penalty(seen([small, large]))) == pytest.approx((2 / 4 + 0) / 2)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(FORMS))
def test_the_surrogate_rises_to_the_count_as_it_sharpens(seed: int, form: str) -> None:
    kernels = [w.detach() for w in random_kernels(seed)]
    rule = GradientCount(weight=1.0, form=form, beta=0.1, beta_end=1e9)  # type: ignore[arg-type]
    values = [float(rule.penalty(seen(kernels, share))) for share in (0.0, 0.1, 0.3, 0.6, 1.0)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))
    exact = sum(count(kernel_differences(w)) / w.numel() for w in kernels) / len(kernels)
    # In float32 a difference may be so small that even the sharpest surrogate does not see it: a few of a thousand.
    assert values[-1] == pytest.approx(exact, rel=5e-3)


def test_beta_is_annealed_on_a_logarithmic_scale() -> None:
    kernels = [w.detach() for w in random_kernels()]
    annealed = GradientCount(beta=2.0, beta_end=200.0)
    middle = GradientCount(beta=20.0, beta_end=20.0)
    torch.testing.assert_close(annealed.penalty(seen(kernels, 0.5)), middle.penalty(seen(kernels)))


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_the_derivative(form: str) -> None:
    rule = GradientCount(weight=0.5, form=form, beta=0.05, beta_end=1.0)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda *given: rule.penalty(seen(given)), random_kernels(away=0.1))
    maps = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    feature = GradientCount(weight=0.5, on="feature", form=form, beta=0.05, beta_end=1.0)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(feature.penalty(View(maps=[maps])), [maps])
    step = torch.zeros_like(maps)
    step[0, 1, 2, 1] = 1e-2
    with torch.no_grad():  # maps are counted in single precision
        slope = (feature.penalty(View(maps=[maps + step])) - feature.penalty(View(maps=[maps - step]))) / 2e-2
    assert float(gradient[0, 1, 2, 1]) == pytest.approx(float(slope), rel=2e-2)


def test_splitting_pulls_as_its_auxiliary_variable_does() -> None:
    """mu |d - h|^2 with h = d where mu d^2 > 1, else 0: small differences are pulled, large ones are left alone."""
    w = torch.tensor([[0.1, 0.15, 3.0]], dtype=torch.float64, requires_grad=True)
    rule = GradientCount(weight=1.0, form="splitting", beta=4.0, beta_end=4.0)
    (seen_pull,) = torch.autograd.grad(rule.penalty(seen([w])), [w])
    d = torch.cat([w.detach()[0], torch.zeros(1)]) - torch.cat([torch.zeros(1), w.detach()[0]])
    h = torch.where(4.0 * d.square() > 1, d, 0.0)
    by_difference = 2 * 4.0 * (d - h) / 3
    torch.testing.assert_close(seen_pull[0], by_difference[:-1] - by_difference[1:])


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 1, 1)])
def test_maps_of_one_position_have_nothing_to_count(shape: tuple[int, ...]) -> None:
    """A penalty that is zero whatever the net does would go unnoticed."""
    one, wide = torch.rand(shape, requires_grad=True), torch.rand(2, 5, 4, 4, requires_grad=True)
    with pytest.raises(ConfigError, match="no feature map behind a non-linearity of this net has more than one"):
        GradientCount(on="feature").penalty(View(maps=[one, one]))
    assert float(GradientCount(on="feature").penalty(View(maps=[one, wide])).detach()) > 0


@pytest.mark.parametrize(
    ("name", "maps"), [("resnet20", 19), ("vgg16-bn", 13), ("unet", 14), ("mobilenetv3-small", 24)]
)
def test_feature_maps_of_built_in_nets_can_be_counted(name: str, maps: int) -> None:
    net = build_model(name, {}, classes=3)
    with caught_maps(net) as caught:
        net(torch.rand(2, 3, 32, 32))
        assert len(caught) == maps
        assert float(GradientCount(on="feature").penalty(View(maps=list(caught))).detach()) > 0


def test_counting_the_losss_gradients_is_no_penalty() -> None:
    with pytest.raises(ConfigError, match=r"an importance, not a penalty: it belongs to prune\.criterion"):
        GradientCount(on="loss")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"beta": 0.0}, "beta is 0.0; it must be a finite number above 0"),
        ({"beta": 5.0, "beta_end": 4.0}, "beta_end is 4.0; it must be a finite number from 5"),
        ({"form": "hard"}, "form is 'hard'"),
        ({"on": "image"}, "on is 'image'"),
        ({"weight": -1.0}, "weight is -1.0"),
    ],
)
def test_options_are_checked_at_birth(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        GradientCount(**options)  # type: ignore[arg-type]
