"""Put the constants of leaving channels where they are read; the graph keeps its shapes and computes the same.

Afterwards every weight that reads a leaving channel is zero, so that cutting it is exact. The formulas are those of
`sites`, with the constants as measured; sums run in float64 and are rounded once.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.errors import InvariantError

from ..names import add_constant, free_name
from .sites import Site, Way, weight_array
from .verdict import Arrival, Verdict


def fold(model: ir.Model, verdict: Verdict) -> ir.Model:
    """Return a copy of the analysed `model` in which nobody reads what leaves. Shapes and names stay."""
    folded = model.clone()
    twin = dict(zip(model.graph, folded.graph))
    arrays: dict[str, NDArray[np.generic]] = {}
    for arrival in verdict.arrivals:
        leaves = np.isin(arrival.ids, list(verdict.leaving))
        weight = arrival.site.weight
        if weight is None or not leaves.any():
            continue
        node, name = twin[arrival.site.node], weight.name or ""
        constants = np.where(leaves & ~arrival.site.unread(), arrival.constants, 0.0)
        if arrival.site.way is Way.BIAS and constants.any():
            _add_bias(folded, node, arrival.site, constants)
        changed = arrays.get(name, weight_array(arrival.site)).copy()
        if arrival.site.way is Way.CARRIER and constants.any():
            carrier = verdict.carriers[arrival.site.node.outputs[0].name or ""]
            changed = _carry(changed, arrival, constants, carrier)
        _silence(changed, arrival.site, leaves)
        arrays[name] = changed
    for name, array in arrays.items():
        folded.graph.initializers[name].const_value = ir.tensor(array, name=name)
    return folded


def _carry(
    weight: NDArray[np.generic], arrival: Arrival, constants: NDArray[np.float64], carrier: int
) -> NDArray[np.generic]:
    """w[o, keep] += sum_i (k_i / k_keep) w[o, i] along the summed axis. Returns the new weight."""
    axis = arrival.site.weight_axis
    at = int(np.flatnonzero((arrival.ids == carrier) & (arrival.constants != 0))[0])
    wide = np.moveaxis(weight.astype(np.float64), axis, 0)
    wide[at] += np.tensordot(constants / arrival.constants[at], wide, 1)
    return np.moveaxis(wide, 0, axis).astype(weight.dtype)


def _silence(weight: NDArray[np.generic], site: Site, leaves: NDArray[np.bool_]) -> None:
    """Zero in place what reads the leaving channels; index j of a grouped convolution leaves in every group."""
    index = leaves.reshape(site.groups, -1).all(axis=0) if site.weight_axis == 1 and site.groups > 1 else leaves
    np.moveaxis(weight, site.weight_axis, 0)[index] = 0


def _add_bias(model: ir.Model, node: ir.Node, site: Site, constants: NDArray[np.float64]) -> None:
    """Add what the constants contribute to every output channel."""
    weight = weight_array(site).astype(np.float64)
    if node.op_type == "Conv":
        taps = weight.sum(axis=tuple(range(2, weight.ndim)))  # (O, I/g)
        each = constants.reshape(site.groups, 1, -1)
        _add_to_conv(model, node, (taps.reshape(site.groups, -1, taps.shape[1]) * each).sum(axis=2).ravel())
    elif node.op_type == "Gemm":
        _add_to_gemm(model, node, np.tensordot(constants, weight, ((0,), (site.weight_axis,))))
    elif node.op_type == "MatMul":
        _add_to_matmul(model, node, np.tensordot(constants, weight, ((0,), (site.weight_axis,))), site.operand)
    else:
        raise InvariantError(f"{node.op_type} has no bias to fold into")


def _add_to_conv(model: ir.Model, node: ir.Node, added: NDArray[np.float64]) -> None:
    old = _third(node)
    _give(model, node, added if old is None else old.astype(np.float64) + added)


def _add_to_gemm(model: ir.Model, node: ir.Node, added: NDArray[np.float64]) -> None:
    """alpha A B + beta C, with beta moved into the new C."""
    alpha, beta = (node.attributes[n].as_float() if n in node.attributes else 1.0 for n in ("alpha", "beta"))
    old = _third(node)
    if beta != 1.0:
        node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    _give(model, node, alpha * added if old is None else beta * old.astype(np.float64) + alpha * added)


def _add_to_matmul(model: ir.Model, node: ir.Node, added: NDArray[np.float64], operand: int) -> None:
    """A matrix product has no bias: an addition follows it, under its old name."""
    product = node.outputs[0]
    users = list(product.uses())
    if operand == 0 and len(users) == 1 and users[0].node.op_type == "Add" and not product.is_graph_output():
        adder, other = users[0].node, users[0].node.inputs[1 - users[0].idx]
        if other is not None and other.is_initializer() and tuple(other.shape or ()) == added.shape:
            assert other.const_value is not None
            total = other.const_value.numpy().astype(np.float64) + added
            _replace(model, adder, 1 - users[0].idx, total, other.const_value.numpy().dtype)
            return
    name = product.name or ""
    dtype = _dtype(node)
    bias = add_constant(model.graph, f"{name}/folded", (added if operand == 0 else added[:, None]).astype(dtype))
    addition = ir.node("Add", [product, bias])
    total_value = addition.outputs[0]
    total_value.type, total_value.shape = product.type, product.shape
    product.replace_all_uses_with(total_value, replace_graph_outputs=True)
    addition.replace_input_with(0, product)
    product.name, total_value.name = free_name(model.graph, f"{name}/product"), name
    model.graph.insert_after(node, addition)


def _third(node: ir.Node) -> NDArray[np.generic] | None:
    """The bias of a node, None where it has none."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _give(model: ir.Model, node: ir.Node, bias: NDArray[np.float64]) -> None:
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    _replace(model, node, 2, bias, _dtype(node))


def _replace(
    model: ir.Model, node: ir.Node, index: int, array: NDArray[np.float64], dtype: np.dtype[np.generic]
) -> None:
    """Give an input of a node a new value: under its name where the node is its only reader and its shape stays."""
    old = node.inputs[index]
    own = old is not None and len(old.uses()) == 1 and not old.is_graph_output()
    if own and old is not None and tuple(old.shape or ()) == array.shape:
        old.const_value = ir.tensor(array.astype(dtype), name=old.name)
        return
    node.replace_input_with(
        index, add_constant(model.graph, f"{node.outputs[0].name}/folded_bias", array.astype(dtype))
    )


def _dtype(node: ir.Node) -> np.dtype[np.generic]:
    """The type of a weighted layer's numbers."""
    value = next(v for v in node.inputs[:2] if v is not None and v.const_value is not None)
    assert value.const_value is not None
    return value.const_value.numpy().dtype
