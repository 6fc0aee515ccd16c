"""Patterns of whole blocks: what is written in place, fixed kernels, sizes that are computed, choices."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.torch.nets import unit

from .patterns import B, Between, Declined, Equal, Two


class InPlace(nn.Module):
    """GhostNet: the wanted part of the channels, a shortcut added in place."""

    def __init__(self) -> None:
        super().__init__()
        self.work = unit(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.work(x)[:, :8, :, :]
        y += x
        return y


class Blur(nn.Module):
    """Anti-aliased pooling: one fixed kernel for every channel. `up`: fixed bilinear upsampling."""

    def __init__(self, up: bool = False) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", (row[:, None] * row / 16).expand(8, 1, 3, 3).clone(), persistent=False)
        self.apply_kernel = F.conv_transpose2d if up else F.conv2d

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_kernel(x, self.kernel, stride=2, padding=1, groups=8)


class WeightedJoin(nn.Module):
    """EfficientDet: a product with the weights of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.rand(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([x, y], -1) @ torch.softmax(self.weights, 0)


class Tokens(nn.Module):
    """Patches as tokens, with positions learned as an image of the same size."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.positions = nn.Conv2d(8, 8, 4, 4), nn.Parameter(torch.randn(1, 8, 8, 8))
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = (self.patch(x) + self.positions).flatten(2).transpose(1, 2)
        return (x + self.narrow(F.gelu(self.wide(x)))).transpose(1, 2).unflatten(2, (8, 8))


class Windows(nn.Module):
    """MobileViT: as many windows as fit, counted from the size of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        rows, columns = math.ceil(h / 2), math.ceil(w / 2)
        x = x.reshape(n, c, rows, 2, columns, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, c, 4, rows * columns)
        x = self.narrow(torch.relu(self.wide(x)))
        return x.reshape(n, c, 2, 2, rows, columns).permute(0, 1, 4, 2, 5, 3).reshape(n, c, 2 * rows, 2 * columns)


class Choice(nn.Module):
    """What happens next depends on the picture."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda y: y * 2, lambda y: y - 1, (x,))


def padded_like_tensorflow(x: Tensor) -> Tensor:
    """ "same" padding for a kernel of 3 in steps of 2: how much depends on the size of the image."""
    height, width = (max((math.ceil(n / 2) - 1) * 2 + 3 - n, 0) for n in x.shape[-2:])
    return F.pad(x, [width // 2, width - width // 2, height // 2, height - height // 2])


def doubled_in_part(x: Tensor) -> Tensor:
    """Half of the channels, in place."""
    x = x.clone()
    x[:, 2:6] *= 2
    return x


def written_into_zeros(x: Tensor) -> Tensor:
    """A joined tensor, allocated first."""
    n, c, h, w = x.shape
    joined = torch.zeros(n, 2 * c, h, w)
    joined[:, :c] = x
    joined[:, c:] = 2 * x
    return joined


EQUAL: dict[str, Equal] = {
    "shortcut added in place": Equal(build=lambda: Between(InPlace()), layers=3),
    "part of the channels in place": Equal(build=lambda: Between(doubled_in_part), layers=2),
    "padding computed from the image": Equal(build=lambda: Between(padded_like_tensorflow), layers=2),
    "written into zeros": Equal(build=lambda: Between(written_into_zeros, 16), layers=2),
    "fixed blur": Equal(build=lambda: Between(Blur()), layers=3),
    "fixed upsampling": Equal(build=lambda: Between(Blur(up=True)), layers=3),
    "join by a weighted product": Equal(build=lambda: Two(WeightedJoin()), layers=2),
    "positions as an image": Equal(build=lambda: Between(Tokens()), layers=5),
    "windows counted from the image": Equal(build=lambda: Between(Windows()), layers=4),
}

DECLINED: dict[str, Declined] = {
    "choice by data": Declined(build=lambda: Between(Choice()), layer=B, reason="If"),
}
