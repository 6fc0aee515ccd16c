"""The same graph in float16, with float32 islands, typed throughout.

Every node is one or the other. Where a value passes from one kind to the other, one Cast stands, shared by all that
read it there. Constants are stored in the type of who reads them: twice, if both do. Inputs and outputs of the graph
keep their types, unless outputs are asked for as float16.

Why not `onnxruntime.transformers.float16.convert_float_to_float16` (1.31; it needs no torch)? It asks for no ranges:
weights beyond 65504 are cut to it without a word, and numbers below 6e-8 raised to that. A weight that an fp16 and an
fp32 node read is rounded for both. It blocks nodes by name, and nodes of a trace need not have one; it appends casts
behind their readers, which the checker refuses. And it turns the cast of the camera's frame into one to float16, so
that the frame is normalised there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from edgeslim.errors import ConfigError, UnsupportedGraphError

from ..channels.context import place
from ..names import add_constant, free_name
from .calibration import Calibration
from .islands import Island, Limits, find_islands
from .typed import Formal, check_typed, formals, schema_of, with_types

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
TYPE_IN_ATTRIBUTE: Mapping[str, str] = {
    "Bernoulli": "dtype",
    "BlackmanWindow": "output_datatype",
    "Cast": "to",
    "EyeLike": "dtype",
    "HammingWindow": "output_datatype",
    "HannWindow": "output_datatype",
    "MelWeightMatrix": "output_datatype",
    "RandomNormal": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniform": "dtype",
    "RandomUniformLike": "dtype",
}
"""Operators that state in an attribute which type they make."""
_QDQ_OPSET = 19
"""The first one in which scales may be float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp16Options:
    """limits: of the range check. keep: first outputs of nodes, or weights, that stay in float32.

    outputs: graph outputs that become float16.
    """

    limits: Limits = field(default_factory=Limits)
    keep: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Halved:
    """model: typed. islands: nodes that stay in float32, each with the reason."""

    model: ir.Model
    islands: tuple[Island, ...]


def to_float16(model: ir.Model, calibration: Calibration, options: Fp16Options | None = None) -> Halved:
    """Make a float32 graph, with or without Q/DQ pairs, a float16 one with islands where float16 would not do.

    Values keep their names; a graph output's name stays with what is given out. Raises ConfigError for a name in
    `options` that the graph has not got, UnsupportedGraphError where types are unknown, DataError where the net does
    not run on the calibration images.
    """
    options = options or Fp16Options()
    typed = with_types(model)
    _check_names(typed, options)
    islands = find_islands(typed, calibration, options.limits, options.keep)
    return Halved(model=convert(typed, {island.value for island in islands}, options.outputs), islands=islands)


def convert(model: ir.Model, islands: Collection[str], outputs: Collection[str] = ()) -> ir.Model:
    """A copy in float16. islands: first outputs of nodes that stay in float32. Nothing is checked against ranges."""
    model = model.clone()
    converter = _Converter(model)
    for node in list(model.graph):
        converter.visit(node, (node.outputs[0].name if node.outputs else "") in islands)
    converter.finish(outputs)
    return check_typed(model)


class _Converter:
    """One walk through a graph, first node to last."""

    def __init__(self, model: ir.Model) -> None:
        self._model, self._graph = model, model.graph
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._opset = model.graph.opset_imports.get("", 0)

    def visit(self, node: ir.Node, single: bool) -> None:
        """Give a node its type, and its operands what it reads."""
        schema = schema_of(node, self._model)
        if schema is None:
            if any(v is not None and v.dtype in (SINGLE, HALF) for v in (*node.inputs, *node.outputs)):
                raise UnsupportedGraphError(
                    f"{place(node)} is an operator of the domain {node.domain!r}: nobody knows its types",
                    "export the net without it",
                )
            return
        scales = node.op_type in ("QuantizeLinear", "DequantizeLinear") and self._opset < _QDQ_OPSET
        wanted = SINGLE if single or scales or not _takes_half(node, schema) else HALF
        for index, (formal, value) in enumerate(list(_aligned(schema, node))):
            if value is None or value.dtype not in (SINGLE, HALF):
                continue
            own = wanted if formal is not None and _allows_half(formal, schema) else SINGLE
            if value.dtype != own:
                node.replace_input_with(index, self._as(value, own, node))
        self._captured(node)
        if wanted == HALF:
            self._halve_results(node, schema)

    def finish(self, outputs: Collection[str]) -> None:
        """Give the graph's outputs their types, and leave out constants that nobody reads any more."""
        for index, value in enumerate(list(self._graph.outputs)):
            wanted, name = HALF if value.name in outputs else SINGLE, value.name or ""
            if value.dtype not in (SINGLE, HALF) or value.dtype == wanted:
                continue
            node = ir.node("Cast", [value], {"to": wanted.value})
            node.outputs[0].type, node.outputs[0].shape = ir.TensorType(wanted), value.shape
            self._graph.append(node)
            self._graph.outputs[index] = node.outputs[0]
            if not value.is_graph_input():  # the name stays with what is given out; an input's is its own
                value.name = free_name(self._graph, f"{name}/{_word(value.dtype)}")
            node.outputs[0].name = name
        for name, value in list(self._graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and value.dtype == SINGLE:
                del self._graph.initializers[name]

    def _as(self, value: ir.Value, wanted: ir.DataType, reader: ir.Node) -> ir.Value:
        """`value` in another type: a twin of a constant, or a Cast right behind whoever makes it."""
        key = (value, wanted)
        if key in self._casts:
            return self._casts[key]
        name = f"{value.name}/{_word(wanted)}"
        if value.is_initializer() and value.const_value is not None and not value.is_graph_input():
            kind = np.float16 if wanted == HALF else np.float32
            cast = add_constant(self._graph, name, value.const_value.numpy().astype(kind))
        else:
            node = ir.node("Cast", [value], {"to": wanted.value})
            cast = node.outputs[0]
            cast.name = node.name = free_name(self._graph, name)
            cast.type, cast.shape = ir.TensorType(wanted), value.shape
            producer = value.producer()
            if producer is not None:
                self._graph.insert_after(producer, node)
            else:
                self._graph.insert_before(next(iter(self._graph)), node)
        self._casts[key] = cast
        return cast

    def _captured(self, node: ir.Node) -> None:
        """What sub-graphs read from outside is float32 there."""
        for inner in _inner_nodes(node):
            for index, value in enumerate(inner.inputs):
                if value is not None and value.dtype == HALF:
                    inner.replace_input_with(index, self._as(value, SINGLE, node))

    def _halve_results(self, node: ir.Node, schema: onnx.defs.OpSchema) -> None:
        attribute = TYPE_IN_ATTRIBUTE.get(node.op_type)
        if attribute is not None and node.outputs[0].dtype == SINGLE:
            node.attributes[attribute] = ir.AttrInt64(attribute, HALF.value)
        if node.op_type == "ConstantOfShape":
            held = (
                node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else np.zeros(1, np.float32)
            )
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(held.astype(np.float16)))
        for formal, value in formals(list(schema.outputs), tuple(node.outputs)):
            if value.dtype == SINGLE and _allows_half(formal, schema):
                value.type = ir.TensorType(HALF)


def _aligned(schema: onnx.defs.OpSchema, node: ir.Node) -> Iterator[tuple[Formal | None, ir.Value | None]]:
    """Every operand, absent ones too, with what the operator says of it."""
    parameters = list(schema.inputs)
    for index, value in enumerate(node.inputs):
        yield (parameters[min(index, len(parameters) - 1)] if parameters else None), value


def _takes_half(node: ir.Node, schema: onnx.defs.OpSchema) -> bool:
    """Whether float16 would change anything: what only looks at a single float (Shape, a cast to integers) need not."""
    floats = [v for v in node.inputs if v is not None and v.dtype in (SINGLE, HALF)]
    makes = any(v.dtype == SINGLE and _allows_half(f, schema) for f, v in formals(list(schema.outputs), node.outputs))
    return makes or len(floats) > 1 or node.op_type == "QuantizeLinear"


def _allows_half(formal: Formal, schema: onnx.defs.OpSchema) -> bool:
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    return "tensor(float16)" in allowed.get(formal.type_str, (formal.type_str,))


def _inner_nodes(node: ir.Node) -> Iterator[ir.Node]:
    """All nodes of a node's sub-graphs, at any depth."""
    for attribute in node.attributes.values():
        graphs = (
            [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH
            else list(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS
            else []
        )  # fmt: skip
        for graph in graphs:
            for inner in graph:
                yield inner
                yield from _inner_nodes(inner)


def _word(dtype: ir.DataType | None) -> str:
    return "float16" if dtype == HALF else "float32"


def _check_names(model: ir.Model, options: Fp16Options) -> None:
    known = {v.name for node in model.graph for v in node.outputs} | set(model.graph.initializers)
    for name in sorted(options.keep - {n for n in known if n}):
        raise ConfigError(f"fp16 keep: the graph has no value {name!r}", "name the output of a node, or its weight")
    outputs = {v.name for v in model.graph.outputs}
    for name in sorted(options.outputs - {n for n in outputs if n}):
        raise ConfigError(f"fp16 outputs: the graph has no output {name!r}", f"it has {sorted(map(str, outputs))}")
    for value in model.graph.outputs:
        if value.name in options.outputs and value.is_graph_input():
            raise ConfigError(
                f"fp16 outputs: {value.name!r} is an input that is given out as it is", "inputs keep their types"
            )
