"""How a weighted layer reads its channels: where a constant input can be folded, and how.

    y[o, p] = b[o] + sum_i sum_t w[o, i, t] * x[i, p + t],          x[i, .] = k_i everywhere
            = (b[o] + sum_{i dead} k_i sum_t w[o, i, t]) + sum_{i alive} ...      without zero padding        (BIAS)

With zero padding the border sees fewer taps, so the contribution is no constant. But it is proportional to k_i, so
all of them can be put on one dead channel that stays: w[o, keep] += sum_i (k_i / k_keep) w[o, i] (CARRIER)
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .constancy import groups


class Way(enum.Enum):
    """How the constant channels of a site leave."""

    BIAS = "bias"
    CARRIER = "carrier"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A node that sums over channels. operand: which input they arrive at; axis: on which of its axes.

    weight, weight_axis: the initializer that multiplies them and its summed axis, None where there is none.
    """

    node: ir.Node
    operand: int
    axis: int
    way: Way
    weight: ir.Value | None = None
    weight_axis: int = 0
    groups: int = 1

    def unread(self) -> NDArray[np.bool_]:
        """(n,) per position on the operand's axis: all weights that read it are zero."""
        array = weight_array(self)
        silent = ~np.any(array, axis=tuple(i for i in range(array.ndim) if i != self.weight_axis))
        return np.tile(silent, self.groups) if self.weight_axis == 1 else silent


def weight_array(site: Site) -> NDArray[np.generic]:
    """The weight of a site that has one."""
    assert site.weight is not None and site.weight.const_value is not None
    return site.weight.const_value.numpy()


def read_site(node: ir.Node, operand: int, axis: int) -> Site:
    """What is known of this operand of a node whose `axis` is summed over."""
    reader = _READERS.get(node.op_type)
    found = reader(node, operand) if reader is not None else None
    return found or Site(node=node, operand=operand, axis=axis, way=Way.NONE)


def _conv(node: ir.Node, operand: int) -> Site | None:
    weight = _initializer(node, 1)
    if operand != 0 or weight is None or not _has_plain_bias(node):
        return None
    padded = "auto_pad" in node.attributes and node.attributes["auto_pad"].as_string() not in ("NOTSET", "VALID")
    padded = padded or ("pads" in node.attributes and any(node.attributes["pads"].as_ints()))
    own = groups(node) == 1 and len(weight.uses()) == 1
    way = Way.BIAS if not padded else Way.CARRIER if own else Way.NONE
    return Site(node=node, operand=0, axis=1, way=way, weight=weight, weight_axis=1, groups=groups(node))


def _conv_transpose(node: ir.Node, operand: int) -> Site | None:
    weight = _initializer(node, 1)
    if operand != 0 or weight is None:
        return None
    # Taps overlap and end at the border: a constant comes out as a pattern.
    way = Way.CARRIER if groups(node) == 1 and len(weight.uses()) == 1 else Way.NONE
    return Site(node=node, operand=0, axis=1, way=way, weight=weight)


def _gemm(node: ir.Node, operand: int) -> Site | None:
    weight = _initializer(node, 1)
    if operand != 0 or weight is None or not _has_plain_bias(node):
        return None
    return Site(
        node=node,
        operand=0,
        axis=0 if flag(node, "transA") else 1,
        way=Way.BIAS,
        weight=weight,
        weight_axis=1 if flag(node, "transB") else 0,
    )


def _matmul(node: ir.Node, operand: int) -> Site | None:
    weight = _initializer(node, 1 - operand)
    if weight is None or weight.shape is None or len(weight.shape) != 2:
        return None
    return Site(
        node=node,
        operand=operand,
        axis=-1 if operand == 0 else -2,
        way=Way.BIAS,
        weight=weight,
        weight_axis=0 if operand == 0 else 1,
    )


_READERS = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm, "MatMul": _matmul}


def flag(node: ir.Node, name: str) -> bool:
    """An integer attribute as a truth value, false where it is absent."""
    return name in node.attributes and bool(node.attributes[name].as_int())


def _initializer(node: ir.Node, index: int) -> ir.Value | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return value if value is not None and value.is_initializer() and value.const_value is not None else None


def _has_plain_bias(node: ir.Node) -> bool:
    return len(node.inputs) < 3 or node.inputs[2] is None or _initializer(node, 2) is not None
