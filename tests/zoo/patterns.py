"""What CNNs do with channels, one small net per pattern and variant, and what must become of it.

EQUAL: compact equals masked, and at least so many layers are open to pruning.
DECLINED: one layer stays whole, with the reason. Patterns that tests/torch/nets.py has are tested there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.torch import nets
from tests.torch.nets import unit

Build = Callable[[], nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class Equal:
    """layers: how many weighted layers must be open at least."""

    build: Build
    layers: int
    shape: tuple[int, ...] = (1, 3, 32, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """layer: the weighted layer that stays whole, for a reason with this text in it."""

    build: Build
    layer: str
    reason: str
    shape: tuple[int, ...] = (1, 3, 32, 32)


class Between(nn.Module):
    """Two units, the pattern, a head: `a` and `b` are open if the pattern lets channels through."""

    def __init__(self, middle: Callable[..., Tensor], out: int = 8, width: int = 8) -> None:
        super().__init__()
        self.a, self.b, self.head = unit(3, width), unit(width, width), nn.Conv2d(out, 2, 1)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.b(self.a(x))))


class Two(Between):
    """As Between, for a pattern that joins two tensors."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.head(self.middle(x, self.b(x)))


class Pooled(Between):
    """As Between, for a pattern that ends in a vector: the head is linear. The pattern sees 4x4 pixels."""

    def __init__(self, middle: Callable[..., Tensor], out: int = 8, width: int = 8) -> None:
        super().__init__(middle, out, width)
        self.head = nn.Linear(out, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(F.adaptive_avg_pool2d(self.b(self.a(x)), 4)))


class Bottleneck(nn.Module):
    """ResNet, with `groups` ResNeXt."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.a, self.narrow, self.short = unit(3, 8), unit(8, 8), nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16))
        self.mid = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=groups), nn.BatchNorm2d(8), nn.ReLU())
        self.wide, self.head = nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16)), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.head(torch.relu(self.wide(self.mid(self.narrow(x))) + self.short(x)).mean((2, 3)))


class InvertedResidual(nn.Module):
    """MobileNetV2: wide inside, depthwise, no activation at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.deep = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU6())
        self.project = nn.Sequential(nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.deep(self.wide(x)))


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.three, self.five = unit(8, 4), nn.Sequential(unit(8, 4), unit(4, 6)), unit(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(F.max_pool2d(x, 3, 1, 1))], 1)


class Aspp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rates = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=r, dilation=r) for r in (1, 2, 4))
        self.image, self.project = nn.Conv2d(8, 4, 1), unit(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        image = F.interpolate(self.image(F.adaptive_avg_pool2d(x, 1)), x.shape[-2:], mode="bilinear")
        return self.project(torch.cat([*(torch.relu(rate(x)) for rate in self.rates), torch.relu(image)], 1))


class C2f(nn.Module):
    """YOLOv8: every bottleneck's output is joined."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.steps = unit(8, 8), nn.ModuleList(unit(4, 4) for _ in range(2))
        self.last = unit(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        parts.extend(step(parts[-1]) for step in self.steps)
        return self.last(torch.cat(parts, 1))


class ShuffleUnit(nn.Module):
    """ShuffleNetV2: half stays, half is worked on, then the channels are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.work = nn.Sequential(unit(4, 4), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4), unit(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = x.chunk(2, 1)
        x = torch.cat([kept, self.work(worked)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class SharedHead(nn.Module):
    """One head reads two scales, as in RetinaNet."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.tower, self.head = unit(3, 8), unit(8, 8), unit(8, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.a(x)
        coarse = self.b(F.max_pool2d(fine, 2))
        return self.head(self.tower(fine)), self.head(self.tower(coarse))


class Heads(nn.Module):
    """Two heads, one of which answers with class indices."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = unit(3, 8), unit(8, 8), unit(8, 8)
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.a(x)
        return {"boxes": self.boxes(self.b(x)), "scores": self.scores(self.c(x))}


class Tied(nn.Module):
    """Two layers, one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = unit(3, 8), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)
        self.c.weight = self.b.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.c(torch.relu(self.b(self.a(x))))))


class Attention(nn.Module):
    """Every place looks at every other; with `heads` in so many ways. `residual` makes it a non-local block."""

    def __init__(self, heads: int = 1, residual: bool = False) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Conv2d(8, 8, 1) for _ in range(4))
        self.heads, self.residual = heads, residual

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        q, k, v = (layer(x).view(n, self.heads, 8 // self.heads, h * w) for layer in (self.q, self.k, self.v))
        weights = torch.softmax(q.transpose(2, 3) @ k * 0.5, -1)
        y = self.out((v @ weights.transpose(2, 3)).reshape(n, 8, h, w))
        return x + y if self.residual else y


class PlainAttention(nn.Module):
    """Attention of one head without a head axis, as in SAGAN."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (self.q, self.k, self.v))
        y = torch.bmm(v, torch.softmax(torch.bmm(q.transpose(1, 2), k), -1).transpose(1, 2))
        return x + y.unflatten(2, x.shape[2:])


class Mha(nn.Module):
    """torch's own multi-head attention over places."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return (tokens + self.attention(tokens, tokens, tokens)[0]).transpose(1, 2).unflatten(2, x.shape[2:])


class Cbam(nn.Module):
    """A gate per channel, then a gate per place from the mean and the maximum over channels."""

    def __init__(self, places: bool = True) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.places = nn.Conv2d(2, 1, 7, padding=3) if places else None

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.sigmoid(self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1)))
        if self.places is None:
            return x
        return x * torch.sigmoid(self.places(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


class Eca(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slide = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.slide(x.mean((2, 3)).unsqueeze(1))).transpose(1, 2).unsqueeze(-1)


class Selective(nn.Module):
    """SKNet: a softmax over branches, channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.squeeze = unit(8, 8), unit(8, 8), nn.Conv2d(8, 4, 1)
        self.ways = nn.ModuleList(nn.Conv2d(4, 8, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        branches = torch.stack([self.left(x), self.right(x)], 1)
        squeezed = torch.relu(self.squeeze(branches.sum(1).mean((2, 3), keepdim=True)))
        weights = torch.softmax(torch.stack([way(squeezed) for way in self.ways], 1), 1)
        return (branches * weights).sum(1)


class ConvNext(nn.Module):
    """Layer norm over channels: the normalised width stays, the hidden one does not."""

    def __init__(self) -> None:
        super().__init__()
        self.deep, self.norm = nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.LayerNorm(8)
        self.wide, self.narrow, self.scale = nn.Linear(8, 32), nn.Linear(32, 8), nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(F.gelu(self.wide(y)))).permute(0, 3, 1, 2)


class Ghost(nn.Module):
    """GhostNet: cheap copies of the channels, and as many of them as are wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.cheap = unit(8, 5), nn.Conv2d(5, 5, 3, padding=1, groups=5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.cat([x, self.cheap(x)], 1)[:, :8]


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,oc->nohw", x, self.weight)


class RepVgg(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.three, self.one, self.skip = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.three(x) + self.one(x) + self.skip(x))


class Focus(nn.Module):
    """YOLOv5's stem, a fast spatial pyramid, and a lateral join."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep, self.join = unit(12, 8), unit(24, 8), nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        fine = self.stem(x)
        once = F.max_pool2d(fine, 5, 1, 2)
        deep = self.deep(torch.cat([fine, once, F.max_pool2d(once, 5, 1, 2)], 1))
        return self.head(F.interpolate(F.max_pool2d(deep, 2), scale_factor=2.0) + self.join(fine))


class Coordinates(nn.Module):
    """CoordConv: two channels that say where."""

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h).view(1, 1, h, 1).expand(n, 1, h, w)
        return torch.cat([x, rows, torch.linspace(-1, 1, w).view(1, 1, 1, w).expand(n, 1, h, w)], 1)


class Indexed(nn.Module):
    """Channels picked by a list of numbers."""

    def __init__(self, *picked: int) -> None:
        super().__init__()
        self.picked = torch.tensor(picked)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.picked)


class Solid(nn.Module):
    """Convolutions over one or three axes of space."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        conv, norm = (nn.Conv1d, nn.BatchNorm1d) if axes == 1 else (nn.Conv3d, nn.BatchNorm3d)
        self.a, self.b, self.head = conv(3, 8, 3, padding=1), conv(8, 8, 3, padding=1), conv(8, 2, 1)
        self.norm, self.pool = norm(8), nn.MaxPool1d(2) if axes == 1 else nn.MaxPool3d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(torch.relu(self.b(torch.relu(self.norm(self.a(x)))))))


def split_attention(x: Tensor) -> Tensor:
    """ResNeSt: two parts of the channels, added."""
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).sum(1)


def mixed(conv: Callable[..., nn.Module], *rest: object, **options: object) -> Callable[[], nn.Module]:
    """Between two units: this module."""
    return lambda: Between(conv(*rest, **options))


EQUAL: dict[str, Equal] = {
    "resnet bottleneck": Equal(build=Bottleneck, layers=5),
    "resnext bottleneck": Equal(build=lambda: Bottleneck(4), layers=5),
    "vgg classifier": Equal(
        build=lambda: Pooled(nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.Dropout())), layers=3
    ),
    "inverted residual": Equal(build=mixed(InvertedResidual), layers=5),
    "inception": Equal(build=lambda: Between(Inception(), 14), layers=6),
    "aspp": Equal(build=mixed(Aspp), layers=7),
    "c2f": Equal(build=mixed(C2f), layers=6),
    "shufflenet v2 unit": Equal(build=mixed(ShuffleUnit), layers=5),
    "shared head": Equal(build=SharedHead, layers=3),
    "two heads": Equal(build=Heads, layers=3),
    "tied weights": Equal(build=Tied, layers=2),
    "1-D convolution": Equal(build=lambda: Solid(1), layers=2, shape=(1, 3, 64)),
    "3-D convolution": Equal(build=lambda: Solid(3), layers=2, shape=(1, 3, 8, 8, 8)),
    "repvgg": Equal(build=mixed(RepVgg), layers=4),
    "focus, spatial pyramid, lateral join": Equal(build=Focus, layers=3),
    "ghost": Equal(build=mixed(Ghost), layers=4),
    "selective kernels": Equal(build=mixed(Selective), layers=7),
    "channel half of CBAM": Equal(build=lambda: Between(Cbam(places=False)), layers=4),
    "gate per place": Equal(build=lambda: Two(lambda x, y: x * torch.sigmoid(y[:, :1])), layers=2),
    "coordinates": Equal(build=lambda: Between(Coordinates(), 10), layers=2),
    "dilated depthwise with stride": Equal(build=mixed(nn.Conv2d, 8, 8, 3, 2, 2, 2, groups=8), layers=3),
    "depthwise transposed": Equal(build=mixed(nn.ConvTranspose2d, 8, 8, 2, 2, groups=8), layers=3),
    "grouped transposed": Equal(build=mixed(nn.ConvTranspose2d, 8, 8, 2, 2, groups=2), layers=3),
    "layer scale": Equal(build=lambda: Between(Scaled()), layers=2),
    "hidden width behind a layer norm": Equal(build=mixed(ConvNext), layers=2),
    # --- moving channels ---
    "hard-coded view": Equal(build=lambda: Pooled(lambda x: x.mean((2, 3)).view(-1, 8)), layers=2),
    "hard-coded flatten": Equal(build=lambda: Pooled(lambda x: x.view(-1, 128), 128), layers=2),
    "permute, flatten, linear": Equal(build=lambda: Pooled(lambda x: x.permute(0, 2, 3, 1).flatten(1), 128), layers=2),
    "first channels": Equal(build=lambda: Between(lambda x: x[:, :5], 5), layers=2),
    "channels from the middle": Equal(build=lambda: Between(lambda x: x[:, 2:6], 4), layers=2),
    "last channels": Equal(build=lambda: Between(lambda x: x[:, -3:], 3), layers=2),
    "every second channel": Equal(build=lambda: Between(lambda x: x[:, ::2], 4), layers=2),
    "even and odd channels": Equal(build=lambda: Between(lambda x: x[:, ::2] + x[:, 1::2], 4), layers=2),
    "reversed channels": Equal(build=lambda: Between(lambda x: x.flip(1)), layers=2),
    "rolled channels": Equal(build=lambda: Between(lambda x: x.roll(3, 1)), layers=2),
    "picked channels": Equal(build=lambda: Between(Indexed(3, 1, 6), 3), layers=2),
    "channels picked twice": Equal(build=lambda: Between(Indexed(3, 1, 3, 0), 4), layers=2),
    "pixel shuffle": Equal(build=lambda: Between(lambda x: F.pixel_shuffle(x, 2), 2), layers=2),
    "pixel unshuffle": Equal(
        build=lambda: Between(lambda x: F.pixel_unshuffle(x, 2), 32),
        layers=2,
    ),
    "tiled channels": Equal(build=lambda: Between(lambda x: x.repeat(1, 2, 1, 1), 16), layers=2),
    "repeated channels": Equal(build=lambda: Between(lambda x: x.repeat_interleave(2, 1), 16), layers=2),
    "interleaved": Equal(build=lambda: Two(lambda x, y: torch.stack([x, y], 2).flatten(1, 2), 16), layers=2),
    "split attention": Equal(build=lambda: Between(split_attention, 4), layers=2),
    "unbound pieces": Equal(build=lambda: Between(lambda x: torch.cat(x.split(3, 1)[::-1], 1)), layers=2),
    "windows of unequal size": Equal(build=lambda: Between(lambda x: F.adaptive_avg_pool2d(x, 5)), layers=2),
    # --- element by element ---
    "gated linear unit": Equal(build=lambda: Between(lambda x: F.glu(x, 1), 4), layers=2),
    "maxout": Equal(build=lambda: Between(lambda x: torch.maximum(*x.chunk(2, 1)), 4), layers=2),
    "smaller of two": Equal(build=lambda: Two(torch.minimum), layers=2),
    "square": Equal(build=lambda: Between(lambda x: x.pow(2)), layers=2),
    "where": Equal(build=lambda: Between(lambda x: torch.where(x > 0.5, x, 0.1 * x)), layers=2),
    "hardtanh": Equal(build=mixed(nn.Hardtanh), layers=2),
    "mish": Equal(build=mixed(nn.Mish), layers=2),
    "unit length": Equal(build=lambda: Between(lambda x: F.normalize(x, dim=1)), layers=2),
    "instance norm": Equal(build=mixed(nn.InstanceNorm2d, 8, affine=True), layers=2),
    "group norm, whole groups": Equal(build=mixed(nn.GroupNorm, 4, 8), layers=2),
    # --- products ---
    "einsum": Equal(build=mixed(Einsum), layers=2),
    "spatial attention": Equal(build=mixed(PlainAttention), layers=5),
    "spatial attention, head axis": Equal(build=mixed(Attention), layers=6),
    "multi-head attention": Equal(build=mixed(Attention, 2), layers=6),
    "non-local block": Equal(build=mixed(Attention, 1, residual=True), layers=6),
    "torch's multi-head attention": Equal(build=mixed(Mha), layers=3),
    # --- outputs ---
    "class indices": Equal(build=lambda: Answer(lambda x: x.argmax(1)), layers=2),
    "probabilities": Equal(build=lambda: Answer(lambda x: x.softmax(1)), layers=2),
    "best classes": Equal(build=lambda: Answer(lambda x: x.topk(1, 1)[0]), layers=2),
}


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Answer(nets.Plain):
    """A net whose last step turns scores into an answer."""

    def __init__(self, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(super().forward(x))


B = "b.0.weight"

DECLINED: dict[str, Declined] = {
    "mean over channels": Declined(
        build=lambda: Between(lambda x: x.mean(1, keepdim=True), 1), layer=B, reason="reduced by ReduceMean"),
    "maximum over channels": Declined(
        build=lambda: Between(lambda x: x.amax(1, keepdim=True), 1), layer=B, reason="reduced by ReduceMax"),
    "softmax over channels": Declined(
        build=lambda: Between(lambda x: x.softmax(1)), layer=B, reason="normalises over channels"),
    "layer norm": Declined(build=mixed(ConvNext), layer="middle.deep.weight", reason="LayerNormalization"),
    "one group of all channels": Declined(
        build=mixed(nn.GroupNorm, 1, 8), layer=B, reason="a width of 1 cannot shrink"
    ),
    "running sum": Declined(build=lambda: Between(lambda x: x.cumsum(1)), layer=B, reason="CumSum"),
    "local response norm": Declined(
        build=mixed(nn.LocalResponseNorm, 3), layer=B, reason="an axis of the image in AveragePool"
    ),
    "channel attention by sliding": Declined(build=mixed(Eca), layer=B, reason="an axis over which Conv"),
    "places of CBAM": Declined(build=mixed(Cbam), layer=B, reason="reduced by ReduceMean"),
    "added map": Declined(
        build=lambda: Two(lambda x, y: x + torch.sigmoid(y[:, :1])), layer="a.0.weight",
        reason="arrive as a non-zero constant"),
    "softplus": Declined(
        build=mixed(nn.Softplus), layer=B, reason="where it would arrive as a non-zero constant"
    ),
    "intermediate output": Declined(build=lambda: Seen(), layer="a.0.weight", reason="graph output"),
}  # fmt: skip


class Seen(nets.Plain):
    """What is inside is also asked for."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x = self.a(x)
        return x, self.head(self.b(x))
