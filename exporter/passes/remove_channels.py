"""Take the cut channels out of the graph for good.

Every initializer loses its cut indices and every number that counts channels is counted again. The result computes
what the masked graph computes, because the analysis only offers units that arrive everywhere as zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from edgeslim.errors import InvariantError

from ..channels import ChannelMap
from ..channels.context import CountRewrite, IndexRewrite
from ..channels.labels import Flags
from ..names import add_constant


def remove_channels(model: ir.Model, channels: ChannelMap, cut: Collection[int]) -> ir.Model:
    """Return `model` without the units whose labels are in `cut`.

    model: the analysed graph, or a copy of it with other weights.
    """
    compact, living = model.clone(), channels.living(cut)
    _shrink_initializers(compact, channels, living)
    _recount(compact, channels, living)
    _resize_values(compact, channels, living)
    common.RemoveUnusedNodesPass()(compact)
    return compact


def _resize_values(model: ir.Model, channels: ChannelMap, living: Flags) -> None:
    """State the new widths of all values. They are counted, not inferred: inference stops at some operators."""
    for node in model.graph:
        for value in node.outputs:
            axes = channels.value_ids.get(value.name or "")
            if axes is not None and value.shape is not None:
                value.shape = ir.Shape(
                    size if ids is None else int(living[ids].sum()) for size, ids in zip(value.shape, axes)
                )


def _shrink_initializers(model: ir.Model, channels: ChannelMap, living: Flags) -> None:
    for name, axes in channels.initializer_axes.items():
        value = model.graph.initializers[name]
        if value.const_value is None:
            raise InvariantError(f"initializer {name} has no value")
        array, before = value.const_value.numpy(), value.shape
        for index, axis in enumerate(axes):
            if axis is not None:
                alive = living[axis.ids]
                if not alive.all():
                    array = array.compress(alive, axis=index)
        if before is None or array.shape != tuple(before):
            value.const_value = ir.tensor(np.ascontiguousarray(array), name=name)
            value.shape = ir.Shape(array.shape)


def _recount(model: ir.Model, channels: ChannelMap, living: Flags) -> None:
    twin = dict(zip(channels.model.graph, model.graph))
    constants: dict[tuple[ir.Node, int], list[CountRewrite]] = defaultdict(list)
    for rewrite in channels.rewrites:
        node = twin[rewrite.node]
        if isinstance(rewrite, IndexRewrite):
            _renumber(model, node, rewrite, living)
        elif rewrite.attribute is not None:
            alive = int(living[rewrite.ids].sum())
            node.attributes[rewrite.attribute] = ir.AttrInt64(rewrite.attribute, alive)
        elif rewrite.input is not None:
            constants[node, rewrite.input].append(rewrite)
    for (node, index), rewrites in constants.items():
        _replace_constant(model, node, index, rewrites, living)


def _renumber(model: ir.Model, node: ir.Node, rewrite: IndexRewrite, living: Flags) -> None:
    alive = living[rewrite.ids]
    old = _constant(node, rewrite.input)
    positions = old % len(alive)
    new_position = np.cumsum(alive) - 1
    kept = (
        new_position[positions[alive[positions]]].reshape(-1, *old.shape[1:]) if old.ndim else new_position[positions]
    )
    _give_constant(model, node, rewrite.input, kept.astype(old.dtype))


def _replace_constant(model: ir.Model, node: ir.Node, index: int, rewrites: list[CountRewrite], living: Flags) -> None:
    array = _constant(node, index).copy()
    for rewrite in rewrites:
        array.ravel()[rewrite.position] = int(living[rewrite.ids].sum())
    _give_constant(model, node, index, array)


def _constant(node: ir.Node, index: int) -> NDArray[np.generic]:
    value = node.inputs[index]
    if value is None or value.const_value is None:
        raise InvariantError(f"{node.name}: input {index} is not a constant")
    return value.const_value.numpy()


def _give_constant(model: ir.Model, node: ir.Node, index: int, array: NDArray[np.generic]) -> None:
    """Give this node its own constant: another reader of the old one may mean another number."""
    old = node.inputs[index]
    if old is None or np.array_equal(array, _constant(node, index)):
        return
    node.replace_input_with(index, add_constant(model.graph, f"{node.outputs[0].name}/{index}", array))
