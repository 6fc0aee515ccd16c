"""Nets to export, and what was written: what the tests of exporting share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeslim.exporter.export import normalize
from edgeslim.trainer.models.unet import UNet
from edgeslim.trainer.pruned import PrunedModel

from . import nets

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
FRAMES = list(np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8))


class TwoOutputs(nets.Plain):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x = self.b(self.a(x))
        return self.head(x), x.mean((2, 3))


class Grey(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nets.unit(1, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.a(x))


BUILD: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "unet": (lambda: UNet(width=8, depth=1), (1, 3, 32, 32)),
    "fixed size": (nets.Flat, (1, 3, 16, 24)),
    "two outputs": (TwoOutputs, (1, 3, 16, 16)),
    "grey": (Grey, (1, 1, 16, 16)),
}


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    return nets.randomized(BUILD[name][0]())


@functools.cache
def analysed(name: str) -> PrunedModel:
    torch.manual_seed(0)
    return PrunedModel.from_module(built(name), torch.randn(BUILD[name][1]))


def pruned(name: str = "unet", cut: bool = True) -> PrunedModel:
    torch.manual_seed(0)
    net = PrunedModel(built(name), torch.randn(BUILD[name][1]), analysed(name).channels)
    if cut:
        net.apply_cut(u.label for f in net.channels.families for u in f.units[1::2])
        assert net.cut
    return net


def content(bundle: Path) -> dict[str, bytes]:
    return {str(f.relative_to(bundle)): f.read_bytes() for f in sorted(bundle.rglob("*")) if f.is_file()}


def left_over(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def answers(
    net: PrunedModel, frame: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]
) -> list[Tensor]:
    with torch.no_grad():
        outputs = net.module.eval()(torch.from_numpy(normalize(frame[None], mean, std)))
    return [o[0] for o in (outputs if isinstance(outputs, tuple) else (outputs,))]
