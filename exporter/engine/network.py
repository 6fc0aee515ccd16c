"""From typed ONNX bytes to a network of TensorRT, or to the node that it does not understand.

Precision lives in the graph. Where TensorRT can be told to keep the graph's types (STRONGLY_TYPED, always so in 11), it
is told. Where it cannot (8.6), or for a DLA while it can also be told by flags (up to 10.7), flags say which types may
be used, and what the graph computes in float32 is pinned to it layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from edgeslim.errors import DeviceError, EngineError, UnsupportedGraphError, first_line
from edgeslim.runtime.backends.tensorrt.log import Log, TrtObject

from .rewrites import nearest_rewrite


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A parsed network and what keeps it alive. typed: its types are the graph's, not TensorRT's choice."""

    builder: TrtObject
    network: TrtObject
    parser: TrtObject
    typed: bool


def stays_typed(trt: ModuleType, on_dla: bool) -> bool:
    """Whether this TensorRT keeps the types of a graph; for a DLA only where types cannot be chosen by flags."""
    flags = hasattr(trt.BuilderFlag, "FP16")
    return not flags or (hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") and not on_dla)


def parse_network(trt: ModuleType, log: Log, onnx: bytes, *, typed: bool, where: str) -> Network:
    """Parse the graph. where: the bundle and precision, for messages.

    Raises UnsupportedGraphError naming the ONNX node that TensorRT does not take, DeviceError where the builder itself
    does not start, EngineError where it makes no network.
    """
    try:
        builder = trt.Builder(log.logger)
    except TypeError as error:  # what its bindings raise where a constructor fails
        raise DeviceError(
            f"TensorRT {trt.__version__} does not start: {log.reason(first_line(error))}",
            "it wants a GPU and a driver that fits: `edgeslim doctor` tells what there is",
        ) from error
    network = builder.create_network(_creation_flags(trt, typed))
    if network is None:
        raise EngineError(f"TensorRT {trt.__version__} makes no network: {log.reason('no reason given')}", "see above")
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(onnx):
        raise _unsupported(trt, parser, log, where)
    return Network(builder=builder, network=network, parser=parser, typed=typed)


def _creation_flags(trt: ModuleType, typed: bool) -> int:
    known = trt.NetworkDefinitionCreationFlag
    names = ["EXPLICIT_BATCH", *(["STRONGLY_TYPED"] if typed else [])]
    return sum(1 << int(getattr(known, name)) for name in names if hasattr(known, name))


def _unsupported(trt: ModuleType, parser: TrtObject, log: Log, where: str) -> UnsupportedGraphError:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    if not errors:
        reason = log.reason("it gives no reason")
        return UnsupportedGraphError(
            f"{where}: TensorRT {trt.__version__} cannot parse the graph: {reason}", "export it again"
        )
    places = []
    for error in errors:
        # The node's name and operator came after 8.6; before, the description has to do.
        operator = error.node_operator() if hasattr(error, "node_operator") else ""
        name = error.node_name() if hasattr(error, "node_name") else f"number {error.node()}"
        what = " ".join(error.desc().split())
        places.append((operator, f"node {name or 'without a name'} ({operator or 'operator not told'}): {what}"))
    operators = [operator for operator, _ in places if operator]
    return UnsupportedGraphError(
        f"{where}: TensorRT {trt.__version__} does not take {len(places)} of the graph's nodes: "
        + "; ".join(dict.fromkeys(text for _, text in places)),
        nearest_rewrite(operators[0] if operators else ""),
    )
