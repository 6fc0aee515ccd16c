"""How torch operators are written in ONNX, where the standard translation hides what happens to channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnxscript import opset18 as op
from onnxscript.function_libs.torch_lib.ops.core import aten_slice_scatter

_LAST = 2**63 - 1
"""The end of an axis of any length."""


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """torch operator -> its translation, for `torch.onnx.export(custom_translation_table=...)`."""
    import torch

    return {
        torch.ops.aten.pixel_unshuffle.default: pixel_unshuffle,
        torch.ops.aten.slice_scatter.default: slice_scatter,
    }


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


def slice_scatter(self: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    """self[start:end] = src along `dim`, as what lies before, src, and what lies behind, joined.

    It is how in-place operators on a part of a tensor are traced: `x[:, :4] += y`. The standard translation scatters
    src to computed positions, which would be data.
    """
    if step != 1 or not all(bound is None or isinstance(bound, int) for bound in (start, end)):
        return aten_slice_scatter(self, src, dim, start, end, step)
    size = self.shape[dim]
    low, high = start or 0, _LAST if end is None else end
    if isinstance(size, int):
        low, high, _ = slice(low, high).indices(size)
        high = _LAST if high >= size else high
    elif low < 0 or high < 0:  # counted from an end that is not known
        return aten_slice_scatter(self, src, dim, start, end, step)
    axis: Any = op.Constant(value_ints=[dim])
    parts = [src]
    if low > 0:
        parts.insert(0, op.Slice(self, op.Constant(value_ints=[0]), op.Constant(value_ints=[low]), axis))
    if high < _LAST:
        parts.append(op.Slice(self, op.Constant(value_ints=[high]), op.Constant(value_ints=[_LAST]), axis))
    return op.Concat(*parts, axis=dim) if len(parts) > 1 else op.Identity(src)
