"""U-Net: an encoder that halves the resolution `depth` times, a decoder that doubles it back.

Every level is Conv-BN-ReLU twice; the decoder sees the encoder's map of the same resolution by concatenation.
Level i has `width * 2**i` channels. Convolutions are padded, so the logits have the size of the input.

Source: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015,
arXiv 1505.04597; batch normalisation and zero padding as in nearly all later versions.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.errors import ConfigError

WIDEST = 16_384
"""Channels of the lowest level: its second convolution alone has nine times the square of them, ten gigabytes."""


class UNet(nn.Module):
    """(N, in_channels, H, W) float32 -> logits (N, classes, H, W) float32; H and W are multiples of `size_multiple`.

    `upsample`: a learnt 2x2 transposed convolution, or a bilinear resize before a 1x1 convolution.
    Raises ConfigError if a number is below 1, the lowest level wider than `WIDEST`, or `upsample` neither.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        width: int = 32,
        depth: int = 3,
        upsample: Literal["transpose", "resize"] = "transpose",
    ) -> None:
        super().__init__()
        _check(in_channels=in_channels, classes=classes, width=width, depth=depth)
        if width * 2**depth > WIDEST:
            raise ConfigError(
                f"unet: width {width} at depth {depth} makes {width * 2**depth} channels at the lowest level; "
                f"allowed are {WIDEST}",
                "every level doubles the width: lower one of the two",
            )
        if upsample not in ("transpose", "resize"):
            raise ConfigError(f"unet: upsample is {upsample!r}", "use transpose or resize")
        self.size_multiple: int = 2**depth
        widths = [width * 2**level for level in range(depth + 1)]
        up = TransposedUp if upsample == "transpose" else ResizedUp
        self.stem = DoubleConv(in_channels, width)
        self.down = nn.ModuleList(DoubleConv(a, b) for a, b in pairwise(widths))
        self.up = nn.ModuleList(up(b, a) for a, b in zip(reversed(widths[:-1]), reversed(widths[1:])))
        self.merge = nn.ModuleList(DoubleConv(2 * a, a) for a in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(F.max_pool2d(x, 2))
        for up, merge, skip in zip(self.up, self.merge, reversed(skips)):
            x = merge(torch.cat([skip, up(x)], dim=1))
        logits: Tensor = self.head(x)
        return logits


class DoubleConv(nn.Sequential):
    """Two 3x3 Conv-BN-ReLU: (N, in_channels, H, W) -> (N, out_channels, H, W). BN makes a bias redundant."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class TransposedUp(nn.ConvTranspose2d):
    """(N, in_channels, H, W) -> (N, out_channels, 2H, 2W), a learnt 2x2 block per pixel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=2, stride=2)


class ResizedUp(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, 2H, 2W), 1x1 convolution, then bilinear.

    Both are linear and act on different axes, so they commute: the convolution goes first, where it is 4x cheaper.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.project(x), scale_factor=2.0, mode="bilinear", align_corners=False)


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ConfigError(f"unet: {name} is {value}", f"{name} is at least 1")
