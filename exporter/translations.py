"""How torch operators are written in ONNX, where the standard translation hides what happens to channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnxscript import opset18 as op


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """torch operator -> its translation, for `torch.onnx.export(custom_translation_table=...)`."""
    import torch

    return {torch.ops.aten.pixel_unshuffle.default: pixel_unshuffle}


def pixel_unshuffle(self: Any, downscale_factor: int) -> Any:
    """(N, C, rH, rW) -> (N, C r^2, H, W), as SpaceToDepth and a reordering of channels.

    SpaceToDepth puts pixel k of channel c at k * C + c, torch at c * r^2 + k. The standard translation computes every
    size from the input's, so that nobody could say which of them count channels.
    """
    channels, pixels = int(self.shape[1]), downscale_factor**2
    order = [k * channels + c for c in range(channels) for k in range(pixels)]
    deep: Any = op.SpaceToDepth(self, blocksize=downscale_factor)
    positions: Any = op.Constant(value_ints=order)
    return op.Gather(deep, positions, axis=1)
