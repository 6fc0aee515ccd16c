"""The two nets on which weight pruning is compared everywhere: LeNet-300-100 and LeNet-5.

    LeNet-300-100    flatten - 300 - 100 - classes                                      266,610 parameters
    LeNet-5          5x5 conv 20 - pool - 5x5 conv 50 - pool - 500 - classes            431,080 parameters

on 28 x 28 grey images and 10 classes. LeNet-5 is the variant of Caffe's MNIST example, which the literature means: no
padding, max pooling, one ReLU, behind the first linear layer. (The name's origin, LeCun et al. 1998, has other
widths.) Both end in linear layers on flattened maps, so they take images of one size only.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.errors import ConfigError


class LeNet300100(nn.Sequential):
    """(N, in_channels, side, side) float32 -> logits (N, classes) float32.

    Raises ConfigError if a number is below 1.
    """

    size_multiple: int = 1

    def __init__(self, in_channels: int = 1, classes: int = 10, side: int = 28) -> None:
        if min(in_channels, classes, side) < 1:
            raise ConfigError(f"lenet-300-100: side is {side}", "a side is at least 1 pixel")
        super().__init__(
            OrderedDict(
                flatten=nn.Flatten(),
                fc1=nn.Linear(in_channels * side * side, 300),
                relu1=nn.ReLU(),
                fc2=nn.Linear(300, 100),
                relu2=nn.ReLU(),
                fc3=nn.Linear(100, classes),
            )
        )


class LeNet5(nn.Module):
    """(N, in_channels, side, side) float32 -> logits (N, classes) float32.

    Raises ConfigError if `side` leaves nothing behind both poolings.
    """

    size_multiple: int = 1

    def __init__(self, in_channels: int = 1, classes: int = 10, side: int = 28) -> None:
        super().__init__()
        left = ((side - 4) // 2 - 4) // 2
        if left < 1:
            raise ConfigError(f"lenet-5: side is {side}", "both convolutions and poolings need at least 16 pixels")
        self.conv1 = nn.Conv2d(in_channels, 20, kernel_size=5)
        self.conv2 = nn.Conv2d(20, 50, kernel_size=5)
        self.fc1 = nn.Linear(50 * left * left, 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        logits: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return logits
