"""VGG-16 and VGG-19 with batch normalisation, as they are used on CIFAR: five groups of 3x3 convolutions, each with a
max pooling behind it, and a single linear layer.

On 32 x 32 images one pixel of 512 channels is left. On larger ones the mean over the pixels is taken.

Source: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014, arXiv
1409.1556, configurations D and E; batch normalisation and the short classifier as in nearly all work on CIFAR.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from edgeslim.errors import ConfigError

GROUPS = (64, 128, 256, 512, 512)
_LAYERS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nn.Module):
    """(N, in_channels, H, W) float32, H and W multiples of 32 -> logits (N, classes) float32.

    width: the share of the published widths. Raises ConfigError if a number is out of range.
    """

    size_multiple: int = 32

    def __init__(self, depth: Literal[16, 19], in_channels: int = 3, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        if depth not in _LAYERS:
            raise ConfigError(f"vgg: depth is {depth}", "use 16 or 19")
        if not 0 < width < math.inf:
            raise ConfigError(f"vgg: width is {width}", "1.0 is the published width")
        layers: list[nn.Module] = []
        channels = in_channels
        for group, count in zip(GROUPS, _LAYERS[depth]):
            wide = max(1, round(group * width))
            for _ in range(count):
                layers += [
                    nn.Conv2d(channels, wide, kernel_size=3, padding=1, bias=False),
                    nn.BatchNorm2d(wide),
                    nn.ReLU(inplace=True),
                ]
                channels = wide
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits
