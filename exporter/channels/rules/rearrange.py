"""Operators that trade channels for space, or repeat them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..context import Axes, Channels, operand, rank
from .registry import rule


@rule("DepthToSpace")
def depth_to_space(node: ir.Node, channels: Channels) -> str | None:
    """C * r * r channels become C: those that fill one output channel share their fate.

    Mode CRD: output c takes inputs c*r*r .. c*r*r + r*r-1 (as PixelShuffle does). DCR: inputs c, C + c, 2C + c, ...
    """
    x = operand(node, 0)
    axes: Axes = list(channels.axes(x))
    if any(a is not None for a in axes[2:]):
        return "channels on an axis of the image"
    if len(axes) > 1 and axes[1] is not None:
        area = node.attributes["blocksize"].as_int() ** 2
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "DCR"

        def rows(flat: np.ndarray) -> np.ndarray:
            return flat.reshape(-1, area) if mode == "CRD" else flat.reshape(area, -1).T

        ids, zero = rows(axes[1].ids), rows(axes[1].zero)
        channels.labels.unite(ids, ids[:, :1])
        axes[1] = axes[1].moved(lambda flat: rows(flat)[:, 0]).with_zero(np.asarray(zero.all(axis=1), np.bool_))
    channels.set(node.outputs[0], axes)
    return None


@rule("SpaceToDepth")
def space_to_depth(node: ir.Node, channels: Channels) -> str | None:
    """C channels become r * r * C: output k*C + c takes pixels of input c."""
    x = operand(node, 0)
    axes: Axes = list(channels.axes(x))
    if any(a is not None for a in axes[2:]):
        return "channels on an axis of the image"
    if len(axes) > 1 and axes[1] is not None:
        area = node.attributes["blocksize"].as_int() ** 2
        axes[1] = axes[1].moved(lambda flat: np.tile(flat, area))
    channels.set(node.outputs[0], axes)
    return None


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
