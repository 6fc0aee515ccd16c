"""Run a net on frames, by whatever runs it: a torch module while training, a bundle's session afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeslim.exporter.export import normalize
from edgeslim.exporter.trace import evaluating

FrameRunner = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Frames (N, H, W, channels) uint8, sides divisible by the net's multiple, to logits float32: (N, classes, H, W), or
(N, classes) of a net that classifies whole images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFormat:
    """How the net wants its images.

    mean, std: of pixels scaled to [0, 1], one number a channel. multiple: what sides are divisible by.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    multiple: int


def module_runner(module: nn.Module, image: ImageFormat) -> FrameRunner:
    """A torch module as a FrameRunner, in eval mode, on the module's own device."""

    def run(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        with evaluating(module), torch.no_grad():
            logits = module(torch.from_numpy(normalize(frames, image.mean, image.std)).to(device))
        return np.asarray(logits.float().cpu().numpy(), np.float32)

    return run


def pad_to_multiple(image: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """Mirror the lower and right edge until both sides are divisible. (H, W, C) -> (H', W', C)."""
    height, width = (-side % multiple for side in image.shape[:2])
    if not height and not width:
        return image
    return np.pad(image, ((0, height), (0, width), (0, 0)), mode="symmetric")


def normalized(scaled: Tensor, image: ImageFormat) -> Tensor:
    """What the net sees of pixels scaled to [0, 1]: (N, channels, h, w) float32 -> the same."""
    mean, std = (scaled.new_tensor(v)[:, None, None] for v in (image.mean, image.std))
    return (scaled - mean) / std
