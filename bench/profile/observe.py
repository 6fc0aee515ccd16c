"""Look at a net while it runs: how long the whole of it takes, and each of its operators as the backend runs them.

Operators are timed where they stand, with the caches as their neighbours leave them, fused as the backend fuses them.
Alone on a bench they would be faster than they ever are in a camera. The whole is timed in a session of its own,
which records nothing, and the two take turns in blocks, so that what disturbs the machine disturbs both. Between the
blocks a small convolution that is always the same is timed: how fast the machine is at this moment.

ONNX Runtime counts whole microseconds and drops the rest. An operator's latency is therefore the mean of the middle
half of its samples, and half a microsecond: a median would jump by a tenth for a small operator.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeslim.errors import DeviceError, InvariantError
from edgeslim.runtime.backends import Array
from edgeslim.runtime.backends.onnxruntime import OnnxRuntimeBackend

from ..clock import NS_PER_S, time_ns
from ..measure import check_threads
from .fingerprint import Fingerprint, fingerprint_here
from .operator import Operator
from .race import Timed, race
from .reference import reference_net

BLOCKS = 3
FEWEST, MOST = 2, 12
"""Timed runs of a block."""
_REFERENCES = 8
"""Timed runs of the reference work before each block."""
_NS_PER_US = 1e3
_MOVERS = ("ReorderInput", "ReorderOutput")
"""Conversions between layouts, which ONNX Runtime puts in: they belong to the value that they move."""
_RAN = "_kernel_time"
"""Behind the names of nodes, in what ONNX Runtime writes of their runs."""
_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
_BLOCKED = "_nchwc"
"""What ONNX Runtime appends to the name of a node that it moves to the blocked layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator of a net as it runs. value: the value of the given graph that it computes, or moves."""

    value: str
    operator: Operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen of one net.

    nodes: in the order in which they run; nodes_us: their latencies, nodes_spread: half their interquartile range as a
    share.  latency_us, spread: of the whole net, the median.  reference_us: of the reference work at that time.
    """

    nodes: tuple[Node, ...]
    nodes_us: tuple[float, ...]
    nodes_spread: tuple[float, ...]
    latency_us: float
    spread: float
    reference_us: float
    runs: int


class Observer(Protocol):
    """A backend on a device, ready to run any net and to tell how long its operators take."""

    @property
    def fingerprint(self) -> Fingerprint:
        """The device that it measures."""

    def structure(self, graph: bytes, feeds: Mapping[str, Array]) -> tuple[Node, ...]:
        """Which operators the backend makes of an ONNX graph, whose nodes bear the name of their first output."""

    def observe(self, graph: bytes, feeds: Mapping[str, Array], seconds: float) -> Observation:
        """The same with latencies, taken in about so many seconds, though never fewer than 6 runs.

        Call it where garbage is not collected (`clock.undisturbed`).
        """

    def race(self, graphs: Sequence[bytes], feeds: Mapping[str, Array], seconds: float) -> tuple[Timed, ...]:
        """Several graphs against the first, see `race`. Raises DeviceError where measurements do not settle."""


def open_observer(device: str) -> OnnxRuntimeObserver:
    """The observer of a device by its name: "cpu:2" is ONNX Runtime on this machine's CPU with two threads.

    Raises DeviceError for a device on which nothing can be observed yet, or a name that is none, ConfigError for more
    threads than there are cores.
    """
    kind, _, number = device.partition(":")
    if kind == "cpu" and re.fullmatch(r"[1-9][0-9]{0,5}", number):
        check_threads(int(number))
        return OnnxRuntimeObserver(threads=int(number))
    if kind in ("cuda", "tensorrt", "ssh"):
        raise DeviceError(
            f"device {device!r}: operators cannot be measured by {kind} yet",
            'use "cpu:1", or a profile of that device with allow_foreign_profile',
        )
    raise DeviceError(f"there is no device {device!r}", 'write "cpu:N" for ONNX Runtime on the CPU with N threads')


class OnnxRuntimeObserver:
    """ONNX Runtime on the CPU."""

    def __init__(self, *, threads: int = 1) -> None:
        self._threads = threads
        self.fingerprint = fingerprint_here(OnnxRuntimeBackend.name, OnnxRuntimeBackend.version, threads)
        model, feeds = reference_net()
        reference = OnnxRuntimeBackend(model, threads=threads)
        self._reference: Callable[[], object] = lambda: reference.run(feeds)

    def structure(self, graph: bytes, feeds: Mapping[str, Array]) -> tuple[Node, ...]:
        """See Observer."""
        with _Recorded(graph, self._threads) as recorded:
            recorded.run(feeds)
            return recorded.finish()[0]

    def observe(self, graph: bytes, feeds: Mapping[str, Array], seconds: float) -> Observation:
        """See Observer."""
        given = dict(feeds)
        with ExitStack() as stack:
            plain = stack.enter_context(OnnxRuntimeBackend(graph, threads=self._threads))
            recorded = stack.enter_context(_Recorded(graph, self._threads))
            plain.run(given)
            once = time_ns(lambda: plain.run(given))
            recorded.run(given)
            each = int(np.clip(seconds * NS_PER_S / (2 * BLOCKS * max(once, 1)), FEWEST, MOST))
            whole, reference, kept = list[int](), list[int](), list[int]()
            for _ in range(BLOCKS):
                self._reference()
                reference += [time_ns(self._reference) for _ in range(_REFERENCES)]
                plain.run(given)  # untimed: the caches are those of another net
                whole += [time_ns(lambda: plain.run(given)) for _ in range(each)]
                recorded.run(given)
                kept += range(recorded.runs, recorded.runs + each)
                for _ in range(each):
                    recorded.run(given)
            nodes, samples = recorded.finish()
        samples = samples[:, kept]
        return Observation(
            nodes=nodes,
            nodes_us=tuple(float(middle_mean(row) + 0.5) for row in samples),
            nodes_spread=tuple(spread_of(row + 0.5) for row in samples),
            latency_us=float(np.median(whole)) / _NS_PER_US,
            spread=spread_of(whole),
            reference_us=float(np.median(reference)) / _NS_PER_US,
            runs=len(whole),
        )

    def race(self, graphs: Sequence[bytes], feeds: Mapping[str, Array], seconds: float) -> tuple[Timed, ...]:
        """See Observer."""
        return race(graphs, feeds, threads=self._threads, seconds=seconds)


def middle_mean(samples: Sequence[float] | NDArray[np.float64]) -> float:
    """The mean of the middle half."""
    ordered = np.sort(np.asarray(samples, np.float64))
    quarter = len(ordered) // 4
    return float(ordered[quarter : len(ordered) - quarter].mean())


def spread_of(samples: Sequence[float] | NDArray[np.float64]) -> float:
    """Half the interquartile range, as a share of the median."""
    low, middle, high = np.quantile(np.asarray(samples, np.float64), [0.25, 0.5, 0.75])
    return float((high - low) / 2 / middle) if middle > 0 else 0.0


class _Recorded:
    """A session that records its operators. runs: how many there were."""

    def __init__(self, graph: bytes, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._optimized = Path(self._folder.name) / "optimized.onnx"
        self._given = {name for node in onnx.load_model_from_string(graph).graph.node for name in node.output}
        self._backend = OnnxRuntimeBackend(
            graph, threads=threads, profile=Path(self._folder.name) / "profile", optimized=self._optimized
        )
        self.runs = 0

    def __enter__(self) -> _Recorded:
        return self

    def __exit__(self, *error: object) -> None:
        self._backend.close()
        self._folder.cleanup()

    def run(self, feeds: Mapping[str, Array]) -> None:
        """Run once."""
        self._backend.run(dict(feeds))
        self.runs += 1

    def finish(self) -> tuple[tuple[Node, ...], NDArray[np.float64]]:
        """The nodes in their order, and their times (nodes, runs) in whole microseconds."""
        events = [
            event
            for event in json.loads(self._backend.end_profile().read_bytes())
            if event.get("cat") == "Node" and str(event["name"]).endswith(_RAN)
        ]
        graph = onnx.load_model(self._optimized, load_external_data=False).graph
        branching = next((n for n in graph.node if any(a.type in _GRAPHS for a in n.attribute)), None)
        if branching is not None:
            raise DeviceError(
                f"{branching.op_type} {branching.name!r} runs operators of its own, which cannot be timed one by one",
                "give the net without branches and loops, or limit macs, parameters, memory or file instead of latency",
            )
        events.sort(key=lambda event: float(event["ts"]))
        ran = _as_run(graph, [str(event["name"]).removesuffix(_RAN) for event in events[: len(graph.node)]])
        if [event["args"]["op_name"] for event in events] != [node.op_type for node in ran] * self.runs:
            raise InvariantError("ONNX Runtime's profile does not fit the graph that it optimised")
        values = _Values(graph, self._given)
        nodes = tuple(Node(value=values.of(node), operator=_operator(node, event)) for node, event in zip(ran, events))
        times = np.array([float(event["dur"]) for event in events], np.float64)
        return nodes, np.ascontiguousarray(times.reshape(self.runs, len(nodes)).T)


def _as_run(graph: onnx.GraphProto, names: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes in the order in which they ran: a graph allows many, and a file has one of them. names: as they ran.

    As they stand in the file where they have no names by which to tell.
    """
    by_name = {node.name: node for node in graph.node if node.name}
    known = len(by_name) == len(graph.node) and by_name.keys() == set(names)
    return [by_name[name] for name in names] if known else list(graph.node)


class _Values:
    """Which value of the given graph a node of the optimised one computes. given: all that there are."""

    def __init__(self, graph: onnx.GraphProto, given: Set[str]) -> None:
        self._given = given
        self._makers = {output: node for node in graph.node for output in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def of(self, node: onnx.NodeProto) -> str:
        """A moved value is known by the node that made it, or by its own name where that is not in the blocked layout.

        A node that is a part of what one given node was, such as half of a HardSwish, belongs to the value that it is
        on the way to.
        """
        if node.op_type in _MOVERS:
            maker = self._makers.get(node.input[0])
            return str(node.input[0]) if maker is None else self.of(maker)
        waiting = [node]
        for ahead in waiting:  # grows; the graph has no cycles
            names = ((ahead.name or ahead.output[0]).removesuffix(_BLOCKED), *ahead.output)
            known = next((name for name in names if name in self._given), None)
            if known is not None and ahead.op_type not in _MOVERS:
                return str(known)
            waiting += [reader for output in ahead.output for reader in self._readers.get(output, ())]
        return str(node.name or node.output[0]).removesuffix(_BLOCKED)


def _operator(node: onnx.NodeProto, event: Mapping[str, object]) -> Operator:
    arguments = event["args"]
    if not isinstance(arguments, Mapping):
        raise InvariantError(f"ONNX Runtime's profile says nothing of {node.name}")
    inputs, types = _tensors(arguments["input_type_shape"])
    outputs, out_types = _tensors(arguments["output_type_shape"])
    attributes = {a.name: _text(onnx.helper.get_attribute_value(a)) for a in node.attribute}
    return Operator(
        name=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
        inputs=inputs,
        outputs=outputs,
        attributes=dict(sorted(attributes.items())),
        dtype=(*types, *out_types, "none")[0],
    )


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _tensors(entries: object) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    """Shapes and types from `[{"float": [1, 32, 24, 24]}, ...]`."""
    pairs = (
        [pair for entry in entries if isinstance(entry, Mapping) for pair in entry.items()]
        if isinstance(entries, list)
        else []
    )
    return tuple(tuple(int(size) for size in shape) for _, shape in pairs), tuple(str(kind) for kind, _ in pairs)
