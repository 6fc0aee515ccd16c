"""Operators that trade channels for space, or repeat them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, rank
from ..labels import Axis
from .registry import rule


@rule("DepthToSpace")
def depth_to_space(node: ir.Node, channels: Channels) -> str | None:
    """C * r * r channels become C: those that fill one output channel share their fate.

    Mode CRD: output c takes inputs c*r*r .. c*r*r + r*r-1 (as PixelShuffle does). DCR: inputs c, C + c, 2C + c, ...
    """
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "DCR"

    def gathered(data: Axis, area: int) -> Axis:
        def rows(flat: np.ndarray) -> np.ndarray:
            return flat.reshape(-1, area) if mode == "CRD" else flat.reshape(area, -1).T

        ids, zero = rows(data.ids), rows(data.zero)
        channels.labels.unite(ids, ids[:, :1])
        return Axis(ids[:, 0], np.asarray(zero.all(axis=1), np.bool_))

    return _trade(node, channels, gathered)


@rule("SpaceToDepth")
def space_to_depth(node: ir.Node, channels: Channels) -> str | None:
    """C channels become r * r * C: output k*C + c takes pixels of input c."""
    return _trade(node, channels, lambda data, area: data.moved(lambda flat: np.tile(flat, area)))


@rule("Tile")
def tile(node: ir.Node, channels: Channels) -> str | None:
    """Labels are repeated with their channels; how often does not change."""
    x = operand(node, 0)
    repeats = channels.constant(node.inputs[1] if len(node.inputs) > 1 else None)
    if repeats is None or rank(x) != repeats.size:
        return "repeats unknown" if channels.labelled(x) else None
    times = [int(n) for n in repeats.ravel()]
    axes = [
        a if a is None or n == 1 else a.moved(lambda flat, n=n: np.tile(flat, n))  # type: ignore[misc]
        for a, n in zip(channels.axes(x), times)
    ]
    channels.set(node.outputs[0], axes)
    return None


def _trade(node: ir.Node, channels: Channels, move: Callable[[Axis, int], Axis]) -> str | None:
    """Axis 1 becomes move(axis 1, r * r); the image, which gives or takes the pixels, must carry no channels."""
    axes: Axes = list(channels.axes(operand(node, 0)))
    if any(a is not None for a in axes[2:]):
        return "channels on an axis of the image"
    if len(axes) > 1 and axes[1] is not None:
        axes[1] = move(axes[1], node.attributes["blocksize"].as_int() ** 2)
    channels.set(node.outputs[0], axes)
    return None
