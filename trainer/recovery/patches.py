"""What a weighted layer sees and says at a few positions: rows of a linear problem.

A convolution is a matrix product at every output position p:

    y[p, o] = sum_{i, t} w[o, i, t] x[i, p * stride + t * dilation - pad]

The rows of its patches at sampled positions, (P, I * taps), and its outputs there, (P, O), are all that a least-squares
correction needs; the full patch matrix of a feature map would be `taps` times as large as the map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a convolution slides. pads: before each spatial axis, then after each, as ONNX has them."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]


def window_of(node: ir.Node) -> Window | None:
    """The window of a Conv without groups, None for what patches do not describe (SAME padding, unknown kernel)."""
    weight = node.inputs[1]
    attributes = node.attributes
    if weight is None or weight.shape is None:
        return None
    kernel = tuple(int(n) for n in weight.shape.numpy()[2:])
    group = attributes["group"].as_int() if "group" in attributes else 1
    padding = attributes["auto_pad"].as_string() if "auto_pad" in attributes else "NOTSET"
    if group != 1 or padding not in ("NOTSET", "VALID"):
        return None

    def given(name: str, default: int, count: int) -> tuple[int, ...]:
        return tuple(attributes[name].as_ints()) if name in attributes else (default,) * count

    n = len(kernel)
    pads = given("pads", 0, 2 * n) if padding == "NOTSET" else (0,) * (2 * n)
    return Window(kernel=kernel, strides=given("strides", 1, n), dilations=given("dilations", 1, n), pads=pads)


def patches(
    x: NDArray[np.generic], y: NDArray[np.generic], window: Window, count: int, generator: np.random.Generator
) -> tuple[Rows, Rows]:
    """At most `count` output positions, none twice: (P, I * taps) what the kernel reads there, (P, O) what it says.

    x: (N, I, spatial...), y: (N, O, spatial...).
    """
    spatial = y.shape[2:]
    flat = _picked(y.shape[0] * int(np.prod(spatial)), count, generator)
    batch, *at = np.unravel_index(flat, (y.shape[0], *spatial))
    n = len(spatial)
    channels_last = np.moveaxis(np.pad(x, [(0, 0), (0, 0), *zip(window.pads[:n], window.pads[n:])]), 1, -1)
    taps = []
    for tap in np.ndindex(*window.kernel):
        places = tuple(p * s + t * d for p, s, t, d in zip(at, window.strides, tap, window.dilations))
        taps.append(channels_last[(batch, *places)])  # (P, I)
    seen = np.stack(taps, axis=2).reshape(len(flat), -1)  # (P, I, taps) as the kernel (O, I, taps) is laid out
    return seen.astype(np.float32), np.moveaxis(y, 1, -1)[(batch, *at)].astype(np.float32)


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
