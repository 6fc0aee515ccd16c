"""Score a net on whole images, by whatever runs it: a torch module while training, a bundle's session afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeslim.exporter.export import normalize
from edgeslim.exporter.trace import evaluating

from .data import Sample
from .metrics import Scores, SegmentationMetrics

FrameRunner = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Frames (N, H, W, 3) uint8, sides divisible by the net's multiple, to logits (N, classes, H, W) float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFormat:
    """How the net wants its images. mean, std: of pixels scaled to [0, 1]. multiple: what sides are divisible by."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    multiple: int


def score_frames(
    run: FrameRunner, samples: Iterable[Sample], classes: tuple[str, ...], ignore_index: int, multiple: int
) -> Scores:
    """Run every image whole, padded by mirroring to the net's multiple, and score its own pixels."""
    metrics = SegmentationMetrics(classes, ignore_index)
    for sample in samples:
        height, width = sample.mask.shape
        logits = run(pad_to_multiple(sample.image, multiple)[None])
        metrics.update(logits[:, :, :height, :width], sample.mask[None])
    return metrics.compute()


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
