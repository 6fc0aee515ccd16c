"""Nets for classification: published sizes, names and shortcuts, and that the analysis prunes them exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgeslim
from edgeslim.errors import ConfigError
from edgeslim.trainer.models import CifarResNet, build_model
from edgeslim.trainer.models.cifar_resnet import PaddedShortcut


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "channels", "expected"),
    [
        ("lenet-300-100", 1, 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10),
        ("lenet-5", 1, 431_080),  # Caffe's
        ("resnet20", 3, 269_722),
        ("resnet56", 3, 853_018),
        ("vgg16-bn", 3, 14_710_464 + 2 * 4_224 + 5_130),  # kernels, batch norms, classifier
    ],
)
def test_published_sizes(name: str, channels: int, expected: int) -> None:
    with torch.device("meta"):
        net = build_model(name, {}, classes=10, in_channels=channels)
    assert parameters(net) == expected


def test_vgg_by_its_configurations() -> None:
    """D has 13 convolutions and E 16, each with a batch norm; the widths are those of the paper."""
    for name, count in (("vgg16-bn", 13), ("vgg19-bn", 16)):
        with torch.device("meta"):
            net = build_model(name, {}, classes=10)
        widths = [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)]
        assert len(widths) == count == sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
        assert (widths[0], widths[-1]) == (64, 512)


def test_the_padded_shortcut_puts_every_second_pixel_between_zeros() -> None:
    x = torch.arange(2 * 4 * 5 * 6, dtype=torch.float32).reshape(2, 4, 5, 6) + 1
    y = PaddedShortcut(4, 2)(x)
    assert y.shape == (2, 8, 3, 3)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any() and not y[:, 6:].any()


def test_resnet_has_the_names_of_published_weights() -> None:
    names = set(CifarResNet(3).state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer3.2.bn2.bias", "linear.bias"} <= names
    assert not any("shortcut" in name for name in names)


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("lenet-5", {"side": 15}, "lenet-5: side is 15"),
        ("lenet-300-100", {"side": 0}, "lenet-300-100: side is 0"),
        ("vgg16-bn", {"width": 0.0}, r"vgg: width is 0\.0"),
        ("resnet20", {"blocks": 4}, r"model\.args\.blocks: resnet20 has no such argument"),
        ("resnet2", {}, "did you mean resnet20"),
    ],
)
def test_wrong_requests(name: str, args: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        build_model(name, args, classes=10)


@pytest.mark.parametrize(
    ("name", "args", "channels", "side"),
    [
        ("lenet-300-100", {}, 1, 28),
        ("lenet-5", {}, 1, 28),
        ("resnet20", {}, 3, 32),
        ("vgg16-bn", {"width": 0.125}, 3, 32),
    ],
)
def test_half_of_the_channels_goes_and_compact_equals_masked(
    name: str, args: dict[str, Any], channels: int, side: int
) -> None:
    torch.manual_seed(0)
    net = build_model(name, args, classes=10, in_channels=channels).eval()
    pruned = edgeslim.prune(net, torch.rand(2, channels, side, side), ratio=0.5)
    x = torch.randn(3, channels, side, side)
    with torch.no_grad():
        masked, small = pruned.module(x), pruned.compact()(x)
    assert parameters(pruned.compact()) < 0.7 * parameters(net)
    np.testing.assert_allclose(small.numpy(), masked.numpy(), rtol=1e-4, atol=1e-5)
