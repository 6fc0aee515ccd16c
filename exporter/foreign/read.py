"""From an ONNX file of any origin to a graph that the analysis understands.

    bytes -> parsed, tensors checked -> sorted, complete, checked -> opset 18 or newer -> shapes -> constants lifted

The rules of the analysis are written for operators as they stand since opset 18; older ones kept numbers in other
places (axes in attributes) or meant something else (Softmax before 13). The converter of `onnx` brings them there;
that of `onnxscript` leaves Unsqueeze, Squeeze and Dropout of opset 9 behind. What the analysis cannot know (operators
of other domains, control flow, missing shapes) is no error here: it keeps its channels.
"""

from __future__ import annotations

import math
import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes import common

from edgeslim.errors import UnsupportedGraphError, first_line

from ..passes.fold_constants import fold_constants
from ..passes.shuffles_to_gathers import shuffles_to_gathers
from ..passes.slices_to_gathers import slices_to_gathers
from .quiet import quiet
from .runnable import runnable
from .tensors import LARGEST_BYTES, check_and_load

OPSET = 18
"""The oldest opset whose operators the rules describe."""
_IR_VERSION = 8
"""The oldest version of the format that is written: initializers need not be inputs."""
_EXPORT_AGAIN = "download or export the file again, and try onnx.checker.check_model on it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignModel:
    """A file that was read. source: the model as it stands in the file, external data inside; graph: for the analysis.

    opset: that of the file. A file too new to be run is brought down first, `source` too.
    """

    path: Path
    source: bytes
    opset: int
    graph: ir.Model


def read_onnx(path: str | os.PathLike[str]) -> ir.Model:
    """Read an ONNX file as a graph that is ready for `analyze`. Raises UnsupportedGraphError naming file and node."""
    return read_foreign(path).graph


def read_foreign(path: str | os.PathLike[str]) -> ForeignModel:
    """Read an ONNX file, and keep what it was beside what became of it. Raises UnsupportedGraphError."""
    with quiet():
        return _read(Path(path))


def _read(path: Path) -> ForeignModel:
    proto = _parse(path)
    opset = _check_header(proto, path)
    check_and_load(proto, path)
    _refuse_twins(proto, path)
    _refuse_dangling(proto, path)
    proto = runnable(proto, opset, path)
    source = _serialize(proto, path)
    proto = _sorted(proto, path)
    proto.ir_version = max(proto.ir_version, _IR_VERSION)
    try:
        check_rules(proto)
    except ValueError as error:
        raise UnsupportedGraphError(f"{path} breaks the rules of ONNX: {error}", _EXPORT_AGAIN) from error
    converted = _converted(proto, opset, path)
    try:
        graph = ir.from_proto(converted)
    except Exception as error:  # as in _sorted
        raise UnsupportedGraphError(f"{path} cannot be read as a graph: {_cause(error)}", _EXPORT_AGAIN) from error
    return ForeignModel(path=path, source=source, opset=opset, graph=_prepared(graph, path))


def check_rules(proto: onnx.ModelProto) -> None:
    """What onnx.checker checks, but for outputs whose rank nobody knows (they come from foreign operators).

    Raises ValueError with what onnx says.
    """
    unknown = [o.type.tensor_type for o in proto.graph.output if o.type.HasField("tensor_type")]
    unknown = [t for t in unknown if not t.HasField("shape")]
    for tensor_type in unknown:
        tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # the checker raises its own types
        raise ValueError(_said(error)) from error
    finally:
        for tensor_type in unknown:
            tensor_type.ClearField("shape")


def _parse(path: Path) -> onnx.ModelProto:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not make us wait
    except OSError as error:
        raise UnsupportedGraphError(f"{path} cannot be read: {error.strerror}", "give an ONNX file") from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_BYTES:
        os.close(handle)
        problem = f"has {found.st_size:,} bytes" if stat.S_ISREG(found.st_mode) else "is not a regular file"
        raise UnsupportedGraphError(
            f"{path} {problem}", f"give a file of at most {LARGEST_BYTES:,} bytes; weights may lie in a second one"
        )
    with open(handle, "rb") as file:
        data = file.read()
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError, which is no public name
        raise UnsupportedGraphError(
            f"{path} is not an ONNX file, or is cut short: {first_line(error)}", _EXPORT_AGAIN
        ) from error
    if not proto.ir_version or not proto.graph.node or not proto.graph.output:
        raise UnsupportedGraphError(f"{path} is not an ONNX file: there is no graph in it", _EXPORT_AGAIN)
    return proto


def _check_header(proto: onnx.ModelProto, path: Path) -> int:
    """The opset of the file, if it is one that is known."""
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise UnsupportedGraphError(
            f"{path} is written for opset {opset}; the newest that onnx {onnx.__version__} knows is {newest}",
            "update the onnx package, or export the model for an older opset",
        )
    if opset < 1 and all(node.domain in ("", "ai.onnx") for node in proto.graph.node):
        raise UnsupportedGraphError(f"{path} does not name its opset", _EXPORT_AGAIN)
    return opset


def _serialize(proto: onnx.ModelProto, path: Path) -> bytes:
    try:
        return bytes(proto.SerializeToString())
    except Exception as error:  # protobuf's EncodeError: above 2 GB
        raise UnsupportedGraphError(
            f"{path} cannot be held as one message: {first_line(error)}", "models of 2 GB and more are not supported"
        ) from error


def _refuse_twins(proto: onnx.ModelProto, path: Path) -> None:
    """No two values have one name: readers of the format do not agree on which of them is meant."""
    graph = proto.graph
    weights = [t.name for t in graph.initializer] + [t.values.name for t in graph.sparse_initializer]
    made = [name for node in graph.node for name in node.output if name]
    for names in (weights + made, [v.name for v in graph.input] + made):  # a weight may be an input too
        twins = [name for name, number in Counter(names).items() if number > 1]
        if twins:
            raise UnsupportedGraphError(f"{path} has two values called {twins[0]!r}", _EXPORT_AGAIN)


def _refuse_dangling(proto: onnx.ModelProto, path: Path) -> None:
    """Every value is made by somebody. Sub-graphs are left to the checker."""
    graph = proto.graph
    known = {v.name for v in graph.input} | {t.name for t in graph.initializer} | {""}
    known |= {t.values.name for t in graph.sparse_initializer} | {name for n in graph.node for name in n.output}
    for node in graph.node:
        for name in node.input:
            if name not in known:
                raise UnsupportedGraphError(
                    f"{path}: {node.op_type} {node.name or (node.output or ['(without a name)'])[0]} reads {name!r}, "
                    "which is no input, no initializer and no output of another node",
                    _EXPORT_AGAIN,
                )


def _sorted(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The graph in topological order, with the shapes that follow from it."""
    try:
        model = ir.from_proto(proto)
        _infer(model)  # the checker wants to know the ranks of outputs
        ir.to_proto(model)
    except Exception as error:  # bytes that are no text, attributes without a type: any exception
        raise UnsupportedGraphError(f"{path} cannot be read as a graph: {_cause(error)}", _EXPORT_AGAIN) from error
    try:
        model.graph.sort()
    except ValueError as error:
        raise UnsupportedGraphError(
            f"{path}: the graph has a cycle through {_in_cycle(model.graph)}", _EXPORT_AGAIN
        ) from error
    return ir.to_proto(model)


def _cause(error: BaseException) -> str:
    """What the innermost exception says; the outer ones repeat the whole graph."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)[:200]


def _in_cycle(graph: ir.Graph) -> str:
    """A node that waits for itself: leave out, again and again, whose inputs are all there."""
    waiting = list(graph)
    while True:
        blocked = {n for n in waiting if any(v is not None and v.producer() in set(waiting) for v in n.inputs)}
        if len(blocked) == len(waiting) or not blocked:
            return _node(waiting[0])
        waiting = [n for n in waiting if n in blocked]


def _node(node: ir.Node) -> str:
    return f"{node.op_type} {node.name or (node.outputs[0].name if node.outputs else '') or '(without a name)'}"


def _converted(proto: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    if opset >= OPSET or opset < 1:
        return proto
    try:
        converted = onnx.version_converter.convert_version(proto, OPSET)
    except Exception as error:  # ConvertError, and whatever an adapter meets
        raise UnsupportedGraphError(
            f"{path}: opset {opset} cannot be converted to {OPSET}: {_said(error)}",
            f"export the model for opset {OPSET} or newer",
        ) from error
    converted.ir_version = max(converted.ir_version, _IR_VERSION)
    return converted


def _prepared(model: ir.Model, path: Path) -> ir.Model:
    """Initializers are no inputs, functions of the file are inlined, shapes inferred, constants initializers."""
    common.RemoveInitializersFromInputsPass()(model)
    if model.functions:
        try:
            common.InlinePass()(model)
        except Exception as error:  # functions that call themselves, or lack an input
            raise UnsupportedGraphError(
                f"{path}: its functions cannot be inlined: {_cause(error)}", _EXPORT_AGAIN
            ) from error
    _infer(model)
    _refuse_giants(model, path)
    try:
        model = fold_constants(model, parameters=(), untrusted=True)
    except Exception:  # folding runs foreign operators, and only saves work: the analysis declines what is left
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _refuse_giants(model, path)
    _infer(model, follow_values=True)
    return shuffles_to_gathers(slices_to_gathers(model))


def _infer(model: ir.Model, follow_values: bool = False) -> None:
    """Infer shapes as far as it goes. Following values allocates what they promise: only after _refuse_giants."""
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=follow_values)(model)


def _refuse_giants(model: ir.Model, path: Path) -> None:
    """A node that makes a tensor of gigabytes out of nothing would take the machine with it when it runs."""
    for node in model.graph:
        for value in node.outputs:
            size = math.prod(d if isinstance(d, int) else 1 for d in value.shape) if value.shape is not None else 0
            if size > LARGEST_BYTES:
                raise UnsupportedGraphError(
                    f"{path}: {_node(node)} makes a tensor of {size:,} elements; at most {LARGEST_BYTES:,} are allowed",
                    _EXPORT_AGAIN,
                )


def _said(error: Exception) -> str:
    """What onnx says, without its path through the C++ sources."""
    return first_line(error).rpartition("] ")[2] or first_line(error)
