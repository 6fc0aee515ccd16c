"""What a weighted layer sees and says at a few positions: rows of a linear problem.

A convolution is a matrix product at every output position p:

    y[p, o] = sum_{i, t} w[o, i, t] x[i, p * stride + t * dilation - pad]            convolution
    y[p, o] = sum_{i, t} w[i, o, t] x[i, (p + pad - t * dilation) / stride]          transposed, where that is whole

The rows of its patches at sampled positions, (P, I * taps), and its outputs there, (P, O), are all that a least-squares
correction needs; the full patch matrix of a feature map would be `taps` times as large as the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a convolution slides. pads: before each spatial axis, then after each, as ONNX has them."""

    transposed: bool
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]


def window_of(node: ir.Node) -> Window | None:
    """The window of a Conv or ConvTranspose, None for what patches do not describe (padding by name or by size)."""
    weight = node.inputs[1]
    attributes = node.attributes
    if weight is None or weight.shape is None:
        return None
    kernel = tuple(int(n) for n in weight.shape.numpy()[2:])
    padding = attributes["auto_pad"].as_string() if "auto_pad" in attributes else "NOTSET"
    if padding not in ("NOTSET", "VALID") or "output_shape" in attributes:
        return None

    def given(name: str, default: int, count: int) -> tuple[int, ...]:
        return tuple(attributes[name].as_ints()) if name in attributes else (default,) * count

    n = len(kernel)
    pads = given("pads", 0, 2 * n) if padding == "NOTSET" else (0,) * (2 * n)
    return Window(
        transposed=node.op_type == "ConvTranspose",
        kernel=kernel,
        strides=given("strides", 1, n),
        dilations=given("dilations", 1, n),
        pads=pads,
    )


def patches(
    x: NDArray[np.generic], y: NDArray[np.generic], window: Window, count: int, generator: np.random.Generator
) -> tuple[Rows, Rows]:
    """At most `count` output positions, none twice: (P, I * taps) what the kernel reads there, (P, O) what it says.

    x: (N, I, spatial...), y: (N, O, spatial...).
    """
    spatial = y.shape[2:]
    flat = _picked(y.shape[0] * int(np.prod(spatial)), count, generator)
    batch, *at = np.unravel_index(flat, (y.shape[0], *spatial))
    channels_last = np.moveaxis(x, 1, -1)
    taps = []
    for tap in np.ndindex(*window.kernel):
        places, inside = _read_by(tap, at, window, x.shape[2:])
        taps.append(channels_last[(batch, *places)] * inside[:, None])  # (P, I)
    seen = np.stack(taps, axis=2).reshape(len(flat), -1)  # (P, I, taps) as the kernel (O, I, taps) is laid out
    return seen.astype(np.float32), np.moveaxis(y, 1, -1)[(batch, *at)].astype(np.float32)


def _read_by(
    tap: tuple[int, ...], at: Sequence[NDArray[np.int64]], window: Window, sizes: tuple[int, ...]
) -> tuple[list[NDArray[np.int64]], NDArray[np.bool_]]:
    """Where this tap reads for outputs at positions `at` (P,) an axis, and (P,) whether there is anything to read."""
    places, inside = [], np.ones(len(at[0]), np.bool_)
    for p, t, size, stride, dilation, pad in zip(at, tap, sizes, window.strides, window.dilations, window.pads):
        if window.transposed:
            place, between = np.divmod(p + pad - t * dilation, stride)
            inside &= between == 0
        else:
            place = p * stride + t * dilation - pad
        inside &= (place >= 0) & (place < size)
        places.append(np.clip(place, 0, size - 1))
    return places, inside


def rows(
    x: NDArray[np.generic], y: NDArray[np.generic], count: int, generator: np.random.Generator
) -> tuple[Rows, Rows]:
    """At most `count` rows of a matrix product: x (..., K), y (..., N) -> (P, K), (P, N)."""
    seen, said = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    picked = _picked(len(seen), count, generator)
    return seen[picked].astype(np.float32), said[picked].astype(np.float32)


def _picked(among: int, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Positions without repetition: a row that is drawn twice could be fitted to and then judged by."""
    return generator.choice(among, min(among, count), replace=False, shuffle=False)
