"""Write a channel shuffle as the reordering of channels that it is.

    (N, g*k, H, W) -> (N, g, k, H, W) -> (N, k, g, H, W) -> (N, k*g, H, W)  =  x[:, order]

As reshapes it needs all groups equally wide, so it ties the channels of one group to those of the others, and a net of
many shuffles ties nearly everything to everything. As a list of positions it ties nothing: any channel may leave.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..names import add_constant, give_way

CHANNELS = 1


def shuffles_to_gathers(model: ir.Model) -> ir.Model:
    """Return a copy of `model` in which every shuffle of axis 1 is one Gather."""
    model = model.clone()
    for node in list(model.graph):
        shuffle = _match(node)
        if shuffle is not None:
            _rewrite(model.graph, *shuffle)
    return model


def _match(transpose: ir.Node) -> tuple[ir.Node, ir.Node, ir.Node] | None:
    """Reshape, Transpose, Reshape, each read by the next alone, that swap two factors of axis 1 and nothing else."""
    if transpose.op_type != "Transpose" or transpose.inputs[0] is None:
        return None
    split, users = transpose.inputs[0].producer(), transpose.outputs[0].uses()
    if split is None or split.op_type != "Reshape" or len(users) != 1 or len(split.outputs[0].uses()) != 1:
        return None
    merge, index = next(iter(users))
    if merge.op_type != "Reshape" or index != 0:
        return None
    before, apart, after = (_shape(v) for v in (split.inputs[0], split.outputs[0], merge.outputs[0]))
    rank = len(before)
    perm = list(transpose.attributes["perm"].as_ints()) if "perm" in transpose.attributes else []
    swapped = [0, 2, 1, *range(3, rank + 1)]
    if rank < 3 or len(apart) != rank + 1 or perm != swapped or None in before or None in apart:
        return None
    width, groups, each = before[CHANNELS], apart[1], apart[2]
    if not all(isinstance(n, int) for n in (width, groups, each)) or int(groups) * int(each) != width:  # type: ignore[arg-type]
        return None
    whole = [*before[:1], *before[2:]]
    if [*apart[:1], *apart[3:]] != whole or before != after:
        return None
    return split, transpose, merge


def _rewrite(graph: ir.Graph, split: ir.Node, transpose: ir.Node, merge: ir.Node) -> None:
    groups, each = _shape(split.outputs[0])[1:3]
    order = np.arange(int(groups or 0) * int(each or 0)).reshape(int(groups or 0), -1).T.ravel()
    out = merge.outputs[0]
    indices = add_constant(graph, f"{out.name}/order", order.astype(np.int64))
    gather = ir.node("Gather", [split.inputs[0], indices], {"axis": CHANNELS})
    gather.outputs[0].type, gather.outputs[0].shape = out.type, out.shape
    graph.insert_before(merge, gather)
    give_way(graph, out, gather.outputs[0], f"{out.name}/shuffled")
    graph.remove([merge, transpose, split], safe=True)


def _shape(value: ir.Value | None) -> list[int | str | None]:
    if value is None or value.shape is None:
        return []
    return [d if isinstance(d, int) else d.value for d in value.shape]
