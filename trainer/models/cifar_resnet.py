"""ResNet for CIFAR: three stages of n blocks at 16, 32, 64 channels; 6n + 2 layers, so n = 3 is ResNet-20.

Where a stage begins, the shortcut has no weights ("option A"): it takes every second pixel and fills the missing
channels with zeros, half before and half behind.

    shortcut(x)[c] = x[c - m, ::2, ::2]   for m <= c < m + C_in,   0 elsewhere,      m = (C - C_in) / 2

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015, arXiv 1512.03385, section 4.2.
Parameters carry the names under which weights of this net are usually published.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.errors import ConfigError

WIDTHS = (16, 32, 64)


class CifarResNet(nn.Module):
    """(N, in_channels, H, W) float32, any size -> logits (N, classes) float32. `blocks`: a stage; 3 is ResNet-20.

    Raises ConfigError if a number is below 1.
    """

    size_multiple: int = 1

    def __init__(self, blocks: int, in_channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        if min(blocks, in_channels, classes) < 1:
            raise ConfigError(f"resnet: {blocks} blocks a stage", "a stage has at least 1 block")
        first, *_ = WIDTHS
        self.conv1 = nn.Conv2d(in_channels, first, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.layer1 = _stage(first, WIDTHS[0], blocks, stride=1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], blocks, stride=2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], blocks, stride=2)
        self.linear = nn.Linear(WIDTHS[-1], classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


class Block(nn.Module):
    """Conv-BN-ReLU-Conv-BN plus the shortcut: (N, in_channels, H, W) -> (N, out_channels, ceil(H/s), ceil(W/s))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = PaddedShortcut(out_channels - in_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        answer: Tensor = self.relu2(y + self.shortcut(x))
        return answer


class PaddedShortcut(nn.Module):
    """Every `stride`-th pixel, and `missing` channels of zeros around what is there."""

    def __init__(self, missing: int, stride: int) -> None:
        super().__init__()
        self.before, self.behind, self.stride = missing // 2, missing - missing // 2, stride

    def forward(self, x: Tensor) -> Tensor:
        thin = x[:, :, :: self.stride, :: self.stride]
        padded: Tensor = F.pad(thin, (0, 0, 0, 0, self.before, self.behind))
        return padded


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(in_channels, out_channels, stride)
    return nn.Sequential(first, *(Block(out_channels, out_channels, 1) for _ in range(blocks - 1)))
