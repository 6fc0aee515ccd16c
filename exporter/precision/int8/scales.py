"""From ranges to scales, and from weights to bytes.

    symmetric     q = clip(round(w / s), -127, 127)     s = max|w| / 127,  zero point 0
    unsigned      q = clip(round(x / s) + z, 0, 255)    s = (high - low) / 255,  z = round(-low / s),  0 in [low, high]

A channel of a weight that is all but zero beside the others gets no scale of its own kind, but 1/4096 of the largest:
float16 could not hold it, and TensorRT refuses a scale that has become 0.

-128 is left out for weights, so that -w is as exact as w, and a product of two of them fits where kernels expect it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = 127
_FAINTEST = 2.0**-12
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Of an activation: one scale and zero point for the whole tensor; signed: int8, else uint8."""

    scale: float
    zero_point: int
    signed: bool


def weight_scales(weight: NDArray[np.generic], axis: int) -> NDArray[np.float32]:
    """(..., C, ...) float -> (C,) float32, one scale a channel; 1 where a channel is zero."""
    rest = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight.astype(np.float64)).max(axis=rest)
    faintest = max(_FAINTEST * float(largest.max(initial=0.0)) / LEVELS, _SMALLEST)
    return np.where(largest > 0, np.maximum(largest / LEVELS, faintest), 1.0).astype(np.float32)


def quantize_weight(weight: NDArray[np.generic], scales: NDArray[np.float32], axis: int) -> NDArray[np.int8]:
    """The weight as int8, in its shape, rounded half to even as QuantizeLinear does."""
    wide = scales.reshape([-1 if i == axis else 1 for i in range(weight.ndim)]).astype(np.float64)
    return np.clip(np.rint(weight.astype(np.float64) / wide), -LEVELS, LEVELS).astype(np.int8)


def dequantize_weight(bytes_: NDArray[np.int8], scales: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """What DequantizeLinear makes of it."""
    return bytes_.astype(np.float32) * scales.reshape([-1 if i == axis else 1 for i in range(bytes_.ndim)])


def signed_scale(low: float, high: float) -> Scale:
    """Symmetric int8. A value that is always 0 gets the scale 1."""
    largest = max(abs(low), abs(high))
    return Scale(scale=max(largest / LEVELS, _SMALLEST) if largest > 0 else 1.0, zero_point=0, signed=True)


def unsigned_scale(low: float, high: float) -> Scale:
    """uint8 with a zero point; 0 is represented exactly, for padding and ReLU."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high == low:
        return Scale(scale=1.0, zero_point=0, signed=False)
    scale = max((high - low) / 255, _SMALLEST)
    return Scale(scale=scale, zero_point=int(np.clip(round(-low / scale), 0, 255)), signed=False)
