"""Small nets, one idea each, for the channel analysis."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


def unit(into: int, out: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), activation())


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = unit(3, 8), unit(8, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x)))


class Residual(Plain):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.head(torch.relu(x + self.b(x)))


class OptionA(nn.Module):
    """The padded shortcut of CIFAR ResNets: strided slice, zero channels on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = unit(3, 8), nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16))
        self.c, self.head = unit(16, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = torch.relu(self.b(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        return self.head(self.c(x).mean((2, 3)))


class Dense(nn.Module):
    """Concatenation upon concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = unit(3, 6), unit(6, 4), unit(10, 4)
        self.head = nn.Conv2d(14, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = torch.cat([x, self.b(x)], 1)
        return self.head(torch.cat([x, self.c(x)], 1))


class Gate(nn.Module):
    """Squeeze and excitation: the gate's sigmoid meets silent channels only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.down, self.up = unit(3, 8, nn.Hardswish), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        gate = F.hardsigmoid(self.up(torch.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(x * gate)


class Depthwise(nn.Module):
    def __init__(self, multiplier: int = 1) -> None:
        super().__init__()
        self.a = unit(3, 8)
        self.b = nn.Conv2d(8, 8 * multiplier, 3, padding=1, groups=8)
        self.n = nn.BatchNorm2d(8 * multiplier)
        self.head = nn.Conv2d(8 * multiplier, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu6(self.n(self.b(self.a(x)))))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = unit(3, 12), nn.Conv2d(12, 8, 3, padding=1, groups=4), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(self.a(x))))


class Chunk(nn.Module):
    """C2f of YOLOv8: a half goes on through a bottleneck, everything is joined."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = unit(3, 12), unit(6, 6), nn.Conv2d(18, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = self.a(x).chunk(2, 1)
        return self.head(torch.cat([kept, worked, worked + self.b(worked)], 1))


class Split(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = unit(3, 12), unit(4, 4), unit(8, 4)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(self.a(x), [4, 8], 1)
        return self.head(torch.cat([self.b(left), self.c(right)], 1))


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = unit(3, 12), unit(12, 12), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        n, c, h, w = x.shape
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.b(x))


class Flat(nn.Module):
    """Flattened with its space, then linear: each channel is 16 features."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.hidden, self.head = unit(3, 8), nn.Linear(8 * 16, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(F.adaptive_avg_pool2d(self.a(x), 4).flatten(1))))


class ChannelsLast(nn.Module):
    """Linear over permuted channels, as in ConvNeXt without its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.wide, self.narrow = unit(3, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.narrow(F.gelu(self.wide(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        return self.head(x + y)


class Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.slope, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.slope(self.a(x)))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = unit(3, 8), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(torch.relu(self.b(self.a(x))))))


class Upsampled(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.a, self.b = unit(3, 8), unit(8, 8)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2) if mode == "transpose" else nn.Conv2d(8, 6, 1)
        self.mode, self.head = mode, nn.Conv2d(14, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.a(x)
        deep = self.up(self.b(F.max_pool2d(skip, 2)))
        if self.mode != "transpose":
            deep = F.interpolate(deep, size=skip.shape[-2:], mode=self.mode)
        return self.head(torch.cat([skip, deep], 1))


class SigmoidBetween(Plain):
    """A masked channel arrives as the constant 0.5: it must stay."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(self.b(self.a(x))))


class Grouping(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.b(self.a(x))))


class Shuffling(Plain):
    """PixelShuffle has no rule yet."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.pixel_shuffle(self.b(self.a(x)), 2))


class Shift(Plain):
    """A per-channel shift that is a parameter is silenced with its channel; a constant is not."""

    def __init__(self, learnt: bool) -> None:
        super().__init__()
        value = torch.linspace(0.5, 1.5, 8)[:, None, None]
        self.shift = nn.Parameter(value) if learnt else value

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x)) + self.shift)


class WidthAsNumber(Plain):
    """Its width enters the computation: shrinking would change the result."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x))
        return self.head(x / x.shape[1] ** 0.5)


class Fixed(nn.Module):
    """Nothing to prune: the only layer is the output."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


class Bare(nn.Module):
    """No batch norm, and a non-linearity that is a function. classes: of its logits."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.a(x)))


class HardCoded(Plain):
    """Its forward names a width: the class cannot shrink, the graph can."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.head(self.b(x.reshape(x.shape[0], 8, x.shape[2], x.shape[3])))


class JoinedOnHeight(Plain):
    """Joined below each other: silent above, a constant below."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.a(x)[:, :, :16], torch.sigmoid(self.a[1](self.a[0](x)))[:, :, 16:]], 2))


class ChannelsToSpace(nn.Module):
    """Efficient channel attention: a 1-D convolution slides over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.slide, self.head = unit(3, 8), nn.Conv1d(1, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.slide(self.a(x).mean((2, 3)).unsqueeze(1)).mean(2))


class ZeroSlope(nn.Module):
    """A slope of zero silences negative numbers, not channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.slope, self.head = unit(3, 8), nn.PReLU(8, init=0.0), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.slope(torch.sigmoid(self.a(x))))


class ZeroGamma(Plain):
    """A parameter that starts at zero, and is trained away from it."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gamma * torch.sigmoid(self.b(self.a(x))))


class Divided(Plain):
    """The divisor must not be silenced with its channel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(1.0, 2.0, 8)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.b(self.a(x)) + self.scale) / self.scale)


class Positions(nn.Module):
    """A learnt image is added: its rows and columns are no channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = unit(3, 8), nn.Conv2d(8, 2, 3, padding=1)
        self.image = nn.Parameter(torch.linspace(-1.0, 1.0, 8 * 36).view(1, 8, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.a(x), 6) + self.image)


def randomized(net: nn.Module, seed: int = 0) -> nn.Module:
    """The net in eval mode with random batch-norm statistics and affine parameters: nothing is zero by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, _BatchNorm):
                for tensor, low, high in (
                    (module.running_mean, -0.5, 0.5),
                    (module.running_var, 0.5, 2.0),
                    (module.weight, 0.5, 1.5),
                    (module.bias, -0.5, 0.5),
                ):
                    assert tensor is not None
                    tensor.uniform_(low, high, generator=generator)
    return net.eval()
