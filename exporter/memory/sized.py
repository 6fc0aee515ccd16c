"""A graph in its order of execution, and how many bytes each of its values has at one size of the frame.

`as_written` takes the graph as it is. `as_fused` takes it as ONNX Runtime has fused it for the CPU of this machine:
convolutions with the activation and the sum behind them, and, where the CPU has the instructions for it, in a blocked
layout, whose channels are padded to full blocks (8 or 16) and into and out of which values are copied (ReorderInput,
ReorderOutput). Those copies are real memory that the graph as written knows nothing of.

The sizes are read off a real run, so that no shape that a forward computes stays unknown. Where a value is stored
otherwise than the graph says, it is the stored size that counts.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from edgeslim.errors import ExportError, InvariantError, first_line

_SUFFIX = "_nchwc"
"""Behind the names of nodes in blocked layout."""
_RAN = "_kernel_time"
_TAP = "edgeslim/size"
_ITEM_BYTES = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "float16": 2,
    "bfloat16": 2,
    "int16": 2,
    "uint16": 2,
    "float": 4,
    "int32": 4,
    "uint32": 4,
    "double": 8,
    "int64": 8,
    "uint64": 8,
}
Stated = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedGraph:
    """value_bytes: of everything that nodes compute. origins: value -> the value of the graph as written that it holds.

    stated: value -> item size and shape as the graph states them, names of sizes included, unless a size is open.
    """

    model: ir.Model
    value_bytes: Mapping[str, int]
    origins: Mapping[str, str] = field(default_factory=dict)
    stated: Mapping[str, Stated] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [o.name for n in self.model.graph for o in n.outputs if o.name and o.name not in self.value_bytes]
        if missing:
            raise ValueError(f"values of unknown size: {missing[:3]}")

    def origin(self, value: str) -> str:
        """The value of the graph as written whose channels this one has."""
        return self.origins.get(value, value)


def as_written(model: ir.Model, shape: tuple[int, ...]) -> SizedGraph:
    """The graph, its first input being of this shape. Raises ExportError where it does not run."""
    return _sized(model.clone(), shape, fused=False)


def as_fused(model: ir.Model, shape: tuple[int, ...]) -> SizedGraph:
    """The graph as ONNX Runtime runs it on this machine's CPU. Raises ExportError where it does not run."""
    named = model.clone()
    for node in named.graph:
        node.name = node.outputs[0].name  # fusion keeps names of nodes, not of values
    with tempfile.TemporaryDirectory() as folder:
        options = _options(plain=False)
        options.optimized_model_filepath = f"{folder}/fused.onnx"
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
        session = _open(ir.to_proto(named), options, shape)
        _run(session, named, shape)
        events = json.loads(Path(session.end_profiling()).read_bytes())
        proto = onnx.load(options.optimized_model_filepath)
    fused = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    _reorder(fused.graph, events)
    names = {o.name or "" for n in named.graph for o in n.outputs}
    sized = _sized(fused, shape, fused=True)
    return SizedGraph(
        model=fused,
        value_bytes=sized.value_bytes,
        origins=_origins(fused, names),
        stated={**sized.stated, **_stated_copies(fused, sized)},
    )


def _reorder(graph: ir.Graph, events: Sequence[Mapping[str, object]]) -> None:
    """Into the order in which the nodes really ran: of all orders that a graph allows, a file has another one.

    events: of a profile. Nodes without a name, which come from inlined functions, are told apart by operator and turn.
    """
    by_name = {node.name or "": node for node in graph if node.name}
    nameless = defaultdict(list)
    for node in graph:
        if not node.name:
            nameless[node.op_type].append(node)
    order = []
    for event in events:
        name, arguments = str(event.get("name")), event.get("args")
        if event.get("cat") != "Node" or not name.endswith(_RAN) or not isinstance(arguments, Mapping):
            continue
        ran = by_name.pop(name.removesuffix(_RAN), None)
        waiting = nameless[str(arguments.get("op_name"))]
        if ran is None and waiting:
            ran = waiting.pop(0)
        if ran is not None:  # else it ran inside a branch or a body of one that is here
            order.append(ran)
    if len(order) != len(graph):
        raise InvariantError(f"{len(graph)} nodes, and {len(order)} of them ran")
    graph.remove(order)
    graph.extend(order)


def _origins(fused: ir.Model, names: set[str]) -> dict[str, str]:
    """What the values hold that fusion made: a node in blocked layout has its result's name, a copy its input's."""
    found: dict[str, str] = {}
    for node in fused.graph:
        value, source = node.outputs[0].name or "", node.inputs[0] if node.inputs else None
        by_name = (node.name or "").removesuffix(_SUFFIX)
        if value in names:
            continue
        if by_name in names:
            found[value] = by_name
        elif node.op_type.startswith("Reorder") and source is not None:
            found[value] = found.get(source.name or "", source.name or "")
    return found


def _stated_copies(fused: ir.Model, sized: SizedGraph) -> dict[str, Stated]:
    """ONNX Runtime infers the shape of a copy into blocked layout, and loses it at the next convolution."""
    found = {}
    for node in fused.graph:
        source, copy = node.inputs[0] if node.inputs else None, node.outputs[0].name or ""
        stated = None if source is None else sized.stated.get(source.name or "")
        if node.op_type == "ReorderInput" and stated is not None and source is not None:
            item, batch, channels, *sides = stated
            if isinstance(channels, int):
                padded = channels * sized.value_bytes[copy] // sized.value_bytes[source.name or ""]
                found[copy] = (item, batch, padded, *sides)
    return found


def _sized(model: ir.Model, shape: tuple[int, ...], *, fused: bool) -> SizedGraph:
    typed = model if fused else ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model)))
    values = {o.name: o for n in typed.graph for o in n.outputs if o.name}
    items = _item_bytes(typed, list(values), shape, fused)
    dims = _dimensions(typed, list(items), shape, fused)
    sizes = {name: math.prod(size.tolist()) * item for (name, item), size in zip(items.items(), dims)}
    for node in typed.graph:
        for value in node.outputs:  # a sequence holds the pieces of what it was made from
            if value.name and value.name not in sizes:
                sizes[value.name] = sum(sizes.get(i.name or "", 0) for i in node.inputs if i is not None)
    stated = {name: found for name, item in items.items() if (found := _stated(values[name], item)) is not None}
    return SizedGraph(model=typed, value_bytes=sizes, stated=stated)


def _item_bytes(model: ir.Model, names: list[str], shape: tuple[int, ...], fused: bool) -> dict[str, int]:
    """Bytes of one element of each of these values that is a tensor: what fusion makes states no types."""
    session = _open(_showing(model, names), _options(fused), shape)
    kinds = {spec.name: spec.type for spec in session.get_outputs()}
    found = {}
    for name in names:
        if kinds[name].startswith("tensor("):
            kind = kinds[name].removeprefix("tensor(").removesuffix(")")
            if kind not in _ITEM_BYTES:
                raise ExportError(f"{name} is a tensor of {kind}, whose size is not known", "report the net")
            found[name] = _ITEM_BYTES[kind]
    return found


def _dimensions(model: ir.Model, names: list[str], shape: tuple[int, ...], fused: bool) -> list[NDArray[np.int64]]:
    """The shape of each of these values, as stored."""
    copy = model.clone()
    made = {o.name: o for n in copy.graph for o in n.outputs}
    taps = [ir.node("Shape", [made[name]]) for name in names]
    copy.graph.extend(taps)
    for index, tap in enumerate(taps):
        tap.outputs[0].name = f"{_TAP}/{index}"
    tapped = _showing(copy, [tap.outputs[0].name or "" for tap in taps])
    return _run(_open(tapped, _options(fused), shape), model, shape) if taps else []


def _run(session: onnxruntime.InferenceSession, model: ir.Model, shape: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """The outputs for an image of zeros."""
    image = model.graph.inputs[0]
    dtype = image.dtype.numpy() if image.dtype is not None else np.dtype(np.float32)
    try:
        return [np.asarray(a) for a in session.run(None, {image.name: np.zeros(shape, dtype)})]
    except Exception as error:
        raise _refused(error, shape) from error


def _showing(model: ir.Model, names: list[str]) -> onnx.ModelProto:
    """The graph with these values as its outputs, of whatever types they have."""
    proto = ir.to_proto(model)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return proto


def _open(
    model: onnx.ModelProto, options: onnxruntime.SessionOptions, shape: tuple[int, ...]
) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own exception types
        raise _refused(error, shape) from error


def _refused(error: Exception, shape: tuple[int, ...]) -> ExportError:
    return ExportError(
        f"the graph does not run on an input of shape {shape}: {first_line(error)}",
        "choose a size that the net accepts",
    )


def _options(plain: bool) -> onnxruntime.SessionOptions:
    """plain: as the graph stands, without fusion."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # Weights in files beside a graph are nobody's business here.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _stated(value: ir.Value, item: int) -> Stated | None:
    if value.shape is None or not len(value.shape):
        return None
    sizes = tuple(d if isinstance(d, int) else d.value for d in value.shape)
    return None if None in sizes else (item, *sizes)
