"""MobileNetV3 with the LR-ASPP head: the usual small net for segmentation on a device.

Backbone: inverted residuals (1x1 expand, depthwise k x k, squeeze-and-excite, 1x1 project), ReLU or hard-swish.
For segmentation the paper keeps the output stride at 16 (the last stage is dilated instead of strided) and halves
the channels of the last stage ("RF2"), which cost most and serve only the 1000 ImageNet classes.
LR-ASPP: the last features, gated by a sigmoid of their pooled selves, are resized to stride 8 and added, as logits,
to a projection of the stride-8 features; the sum is resized to the input.

Source: Howard et al., "Searching for MobileNetV3", 2019, arXiv 1905.02244, tables 1 and 2, section 6.4; widths rounded
as in Sandler et al., "MobileNetV2", 2018, arXiv 1801.04381. Different here: the gate pools the whole image instead of a
49 x 49 window (so that any input size works), and batch norm keeps torch's momentum 0.1 (0.01 needs long training).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.errors import ConfigError


class _Block(NamedTuple):
    """One row of the paper's tables; `stride` 2 begins a new resolution."""

    kernel: int
    expand: int
    out: int
    excite: bool
    hard_swish: bool
    stride: int


_ROWS: dict[str, tuple[_Block, ...]] = {
    "large": (
        _Block(3, 16, 16, False, False, 1),
        _Block(3, 64, 24, False, False, 2),
        _Block(3, 72, 24, False, False, 1),
        _Block(5, 72, 40, True, False, 2),
        _Block(5, 120, 40, True, False, 1),
        _Block(5, 120, 40, True, False, 1),
        _Block(3, 240, 80, False, True, 2),
        _Block(3, 200, 80, False, True, 1),
        _Block(3, 184, 80, False, True, 1),
        _Block(3, 184, 80, False, True, 1),
        _Block(3, 480, 112, True, True, 1),
        _Block(3, 672, 112, True, True, 1),
        _Block(5, 672, 160, True, True, 2),
        _Block(5, 960, 160, True, True, 1),
        _Block(5, 960, 160, True, True, 1),
    ),
    "small": (
        _Block(3, 16, 16, True, False, 2),
        _Block(3, 72, 24, False, False, 2),
        _Block(3, 88, 24, False, False, 1),
        _Block(5, 96, 40, True, True, 2),
        _Block(5, 240, 40, True, True, 1),
        _Block(5, 240, 40, True, True, 1),
        _Block(5, 120, 48, True, True, 1),
        _Block(5, 144, 48, True, True, 1),
        _Block(5, 288, 96, True, True, 2),
        _Block(5, 576, 96, True, True, 1),
        _Block(5, 576, 96, True, True, 1),
    ),
}


class MobileNetV3LRASPP(nn.Module):
    """(N, in_channels, H, W) float32 -> logits (N, classes, H, W) float32, any H, W.

    width: multiplies every backbone width (the paper's 0.75 and 1.0); head_width: channels of the LR-ASPP head.
    dilated: output stride 16 instead of 32; reduced_tail: half the channels in the last stage.
    Raises ConfigError on an unknown variant or a number that makes an empty layer.
    """

    size_multiple: int = 1

    def __init__(
        self,
        variant: Literal["small", "large"] = "small",
        classes: int = 2,
        in_channels: int = 3,
        width: float = 1.0,
        head_width: int = 128,
        dilated: bool = True,
        reduced_tail: bool = True,
    ) -> None:
        super().__init__()
        if variant not in _ROWS:
            raise ConfigError(f"mobilenetv3: variant is {variant!r}", f"use {' or '.join(sorted(_ROWS))}")
        if not 0 < width < math.inf or min(classes, in_channels, head_width) < 1:
            seen = f"width {width}, classes {classes}, in_channels {in_channels}, head_width {head_width}"
            raise ConfigError(f"mobilenetv3: {seen}", "all are positive, and finite")
        rows = _scaled(_ROWS[variant], width, reduced_tail)
        stem = _rounded(16 * width)
        self.stem = ConvUnit(in_channels, stem, kernel=3, stride=2, activation=nn.Hardswish())
        self.early = nn.Sequential()
        self.late = nn.Sequential()
        stride, dilation, channels, early_channels = 2, 1, stem, stem
        for row in rows:
            if row.stride == 2 and stride == 16 and dilated:
                dilation, row = 2, row._replace(stride=1)
            stride *= row.stride
            block = InvertedResidual(channels, row, dilation)
            if stride <= 8:
                self.early.append(block)
                early_channels = row.out
            else:
                self.late.append(block)
            channels = row.out
        last = 6 * channels
        self.tail = ConvUnit(channels, last, kernel=1, activation=nn.Hardswish())
        self.head = LRASPP(early_channels, last, head_width, classes)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.early(self.stem(x))
        logits = self.head(fine, self.tail(self.late(fine)))
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)


class ConvUnit(nn.Sequential):
    """Conv-BN-activation: (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        activation: nn.Module | None = None,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        padding = (kernel - 1) // 2 * dilation
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation=dilation, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels, eps=1e-3),
        ]
        super().__init__(*layers, *([activation] if activation is not None else []))


class SqueezeExcite(nn.Module):
    """(N, C, H, W) -> same: each channel times a gate in [0, 1] computed from the pooled channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _rounded(channels / 4)
        self.squeeze = nn.Conv2d(channels, squeezed, kernel_size=1)
        self.excite = nn.Conv2d(squeezed, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1)
        return x * F.hardsigmoid(self.excite(F.relu(self.squeeze(pooled))))


class InvertedResidual(nn.Module):
    """(N, channels, H, W) -> (N, row.out, H / stride, W / stride), with a shortcut where the shapes allow it."""

    def __init__(self, channels: int, row: _Block, dilation: int) -> None:
        super().__init__()

        def activation() -> nn.Module:
            return nn.Hardswish() if row.hard_swish else nn.ReLU()

        self.shortcut = row.stride == 1 and channels == row.out
        layers: list[nn.Module] = []
        if row.expand != channels:
            layers.append(ConvUnit(channels, row.expand, kernel=1, activation=activation()))
        layers.append(
            ConvUnit(row.expand, row.expand, row.kernel, activation(), row.stride, dilation, groups=row.expand)
        )
        if row.excite:
            layers.append(SqueezeExcite(row.expand))
        layers.append(ConvUnit(row.expand, row.out, kernel=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


class LRASPP(nn.Module):
    """Fine (N, fine_channels, h, w) and coarse (N, coarse_channels, h', w') features -> logits (N, classes, h, w)."""

    def __init__(self, fine_channels: int, coarse_channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.project = ConvUnit(coarse_channels, width, kernel=1, activation=nn.ReLU())
        self.gate = nn.Conv2d(coarse_channels, width, kernel_size=1, bias=False)
        self.fine = nn.Conv2d(fine_channels, classes, kernel_size=1)
        self.coarse = nn.Conv2d(width, classes, kernel_size=1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        gated = self.project(coarse) * self.gate(F.adaptive_avg_pool2d(coarse, 1)).sigmoid()
        resized = F.interpolate(gated, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.fine(fine) + self.coarse(resized)
        return logits


def _scaled(rows: Sequence[_Block], width: float, reduced_tail: bool) -> list[_Block]:
    """The table with its widths multiplied and, if asked, the last stage halved (all of it but its input)."""
    tail = max(i for i, row in enumerate(rows) if row.stride == 2)
    scaled = []
    for i, row in enumerate(rows):
        cut = 2 if reduced_tail and i >= tail else 1
        expand = row.expand // (cut if i > tail else 1)
        scaled.append(row._replace(expand=_rounded(expand * width), out=_rounded(row.out // cut * width)))
    return scaled


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and never less than 90 % of what was asked (MobileNetV2)."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near
