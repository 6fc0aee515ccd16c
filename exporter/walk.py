"""A graph computed piece by piece on fixed inputs, so that weights may change on the way.

Correcting a layer needs what reaches it through the corrected layers before it. To run the whole net for every layer
would take the square of its depth; a walk computes every value once, and holds those that are still to be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeslim.errors import DataError, InvariantError, first_line

from .foreign.feeds import Arrays, open_session

Batches = list[NDArray[np.generic]]
"""One array for each set of inputs."""


class Walk:
    """A place in a graph's order of computation: everything before it has been computed.

    weights: initializer -> array; a change counts for all that is computed after it.
    """

    def __init__(self, model: ir.Model, inputs: Sequence[Arrays], entries: Mapping[str, str] | None = None) -> None:
        """Start before the first node. inputs: full sets of graph inputs. entries: of the sessions (`open_session`)."""
        self._entries = entries
        proto = ir.to_proto(model)
        self._opsets, self._ir_version = list(proto.opset_import), proto.ir_version
        self._nodes = list(proto.graph.node)
        self._reads = [frozenset(_reads(node)) for node in self._nodes]
        self.weights = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
        self._producer = {name: i for i, node in enumerate(self._nodes) for name in node.output if name}
        self._last_read = {name: i for i, names in enumerate(self._reads) for name in names}
        self._live: dict[str, Batches] = {v.name: [np.asarray(a[v.name]) for a in inputs] for v in proto.graph.input}
        self._count, self._at = len(inputs), 0

    def advance(self, value: str) -> None:
        """Go on to just before the node that computes `value`. Raises InvariantError if it lies behind."""
        stop = self._producer[value]
        if stop < self._at:
            raise InvariantError(f"{value} has been computed already")
        needed = {
            name
            for node in self._nodes[self._at : stop]
            for name in node.output
            if name and self._last_read.get(name, -1) >= stop
        }
        computed = self._run(stop, sorted(needed))
        self._live = {n: b for n, b in {**self._live, **computed}.items() if self._last_read.get(n, -1) >= stop}
        self._at = stop

    def peek(self, values: Sequence[str]) -> list[Batches]:
        """These values, computed ahead where that is needed, without going there."""
        ahead = [name for name in values if name not in self._live]
        stop = max((self._producer[name] + 1 for name in ahead), default=self._at)
        computed = {**self._live, **self._run(stop, list(dict.fromkeys(ahead)))}
        return [computed[name] for name in values]

    def _run(self, stop: int, outputs: Sequence[str]) -> dict[str, Batches]:
        """Compute `outputs` from what is live, with the nodes before `stop`."""
        if not outputs:
            return {}
        nodes, wanted = [], set(outputs)
        for index in reversed(range(self._at, stop)):
            if wanted.intersection(self._nodes[index].output):
                nodes.append(self._nodes[index])
                wanted |= self._reads[index]
        session = open_session(self._piece(nodes[::-1], wanted, outputs), "a piece of the graph", self._entries)
        names = [v.name for v in session.get_inputs()]
        results = []
        for i in range(self._count):
            try:
                results.append(session.run(outputs, {n: self._live[n][i] for n in names}))
            except Exception as error:  # onnxruntime raises its own exception types
                raise DataError(
                    f"the net does not run on calibration input {i}: {first_line(error)}",
                    "give inputs of a size that the net takes",
                ) from error
        return {name: [r[k] for r in results] for k, name in enumerate(outputs)}

    def _piece(self, nodes: Sequence[onnx.NodeProto], reads: Iterable[str], outputs: Sequence[str]) -> bytes:
        feeds, weights = [], []
        for name in sorted(reads):
            if name in self.weights:
                weights.append(numpy_helper.from_array(self.weights[name], name))
            elif name in self._live:
                feeds.append(_described(name, self._live[name]))
        ends = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(nodes, "piece", feeds, ends, weights)
        model = helper.make_model(graph, opset_imports=self._opsets, ir_version=self._ir_version)
        return bytes(model.SerializeToString())


def _described(name: str, batches: Batches) -> onnx.ValueInfoProto:
    """The type of a value. Sizes in which batches differ are left open; a sequence comes as a list.

    The others are stated: ONNX takes the open size of a list of sizes, as Resize reads it, for 0.
    """
    like: NDArray[np.generic] | list[NDArray[np.generic]] = batches[0]
    if isinstance(like, list):
        kind = helper.np_dtype_to_tensor_dtype(like[0].dtype) if like else onnx.TensorProto.FLOAT
        return helper.make_tensor_sequence_value_info(name, kind, None)
    sizes = [{batch.shape[axis] for batch in batches} for axis in range(like.ndim)]
    shape = [next(iter(seen)) if len(seen) == 1 else None for seen in sizes]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(like.dtype), shape)


def _reads(node: onnx.NodeProto) -> Iterable[str]:
    """What a node reads, inside of its branches and bodies too."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)
            yield from (output.name for output in graph.output)
