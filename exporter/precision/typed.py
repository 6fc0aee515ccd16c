"""The law of typed graphs: operands of one type variable have one type.

ONNX gives every operator type variables: Add has T for both operands and its result, Resize has T1 for the image and
float32 for its scales. TensorRT's strongly typed networks cast nothing by themselves, so a float16 beside a float32
where the operator has one variable is an error there. Here it is found before, and named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from edgeslim.errors import InvariantError, UnsupportedGraphError

from ..channels.context import place

Formal = onnx.defs.OpSchema.FormalParameter


def schema_of(node: ir.Node, model: ir.Model) -> onnx.defs.OpSchema | None:
    """What ONNX says of a node's operator; None for operators of other domains."""
    version = node.version or model.graph.opset_imports.get(node.domain, model.graph.opset_imports.get("", 1))
    try:
        return onnx.defs.get_schema(node.op_type, version, "" if node.domain == "ai.onnx" else node.domain)
    except onnx.defs.SchemaError:
        return None


def formals(parameters: list[Formal], values: Sequence[ir.Value | None]) -> Iterator[tuple[Formal, ir.Value]]:
    """What an operator says of each of these operands; the last parameter may stand for any number of them."""
    for index, value in enumerate(values):
        if value is not None and parameters:
            yield parameters[min(index, len(parameters) - 1)], value


def mixed_operands(model: ir.Model) -> list[str]:
    """Every node, in words, whose operands of one type variable are float16 and float32."""
    found = []
    for node in model.graph:
        schema = schema_of(node, model)
        if schema is None:
            continue
        kinds: dict[str, set[ir.DataType]] = {}
        both = [*formals(list(schema.inputs), node.inputs), *formals(list(schema.outputs), node.outputs)]
        for formal, value in both:
            if value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
                kinds.setdefault(formal.type_str, set()).add(value.dtype)
        if any(len(seen) > 1 for seen in kinds.values()):
            found.append(f"{place(node)} mixes float16 and float32")
    return found


def check_typed(model: ir.Model) -> ir.Model:
    """`model` with all types as ONNX infers them. Raises InvariantError where they are mixed or cannot be inferred."""
    try:
        proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), check_type=True, strict_mode=True)
        onnx.checker.check_model(proto)
    except Exception as error:  # InferenceError, ValidationError, and bare RuntimeErrors
        raise InvariantError(f"the typed graph is no valid ONNX: {error}") from error
    inferred = ir.from_proto(proto)
    mixed = mixed_operands(inferred)
    if mixed:
        raise InvariantError(f"the typed graph is not: {mixed[0]}")
    return inferred


def with_shapes(model: ir.Model) -> ir.Model:
    """A copy with the types and shapes that ONNX infers, constants as initializers, functions inlined."""
    model = model.clone()
    if model.functions:
        common.InlinePass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model)))


def with_types(model: ir.Model) -> ir.Model:
    """A copy whose values have types, and whose constants are initializers, functions inlined.

    Raises UnsupportedGraphError naming the first value whose type nobody knows.
    """
    typed = with_shapes(model)
    for node in typed.graph:
        for value in node.outputs:
            if value.name and value.type is None:
                raise UnsupportedGraphError(
                    f"the type of what {place(node)} makes is unknown",
                    "operators of other domains cannot be given a precision; export the net without them",
                )
    return typed
