"""A device that does not exist: latencies by a formula, so that promises about measurements can be tested exactly.

Every node takes `per_node_us`, and a layer with weights what its multiply-accumulates take once both of its channels
are filled up to whole blocks: a staircase. The whole net takes the sum, times `whole_factor`, and `whole_us`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgeslim.bench.profile import Fingerprint, Observation, Operator, Place, Timed
from edgeslim.bench.profile.observe import Node
from edgeslim.bench.profile.race import MOST_WIDE
from edgeslim.bench.profile.store import DeviceProfile
from edgeslim.bench.result import Speedup
from edgeslim.errors import DeviceError
from edgeslim.exporter.channels import ChannelMap, analyze
from edgeslim.runtime.backends import Array

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
REFERENCE_US = 100.0


def fingerprint(backend_version: str = "1.0", *, threads: int = 1, backend: str = "fake") -> Fingerprint:
    """The fingerprint of a device that does not exist."""
    return Fingerprint(
        backend=backend,
        backend_version=backend_version,
        threads=threads,
        architecture="paper",
        cpu="Imagined",
        cpu_flags=(),
        usable_cores=1,
        governor=None,
        max_clock_mhz=None,
    )


@dataclass(kw_only=True)
class FakeObserver:
    """noise: standard deviation of every latency, as a share.  slow: number of an observation -> how slow all is then.

    race_factor: graph -> how much longer it takes in a race than the profile knows.
    observed, structures, races: how often each was asked for.
    """

    fingerprint: Fingerprint = field(default_factory=fingerprint)
    block: int = 16
    per_node_us: float = 5.0
    mac_us: float = 1e-3
    whole_factor: float = 1.0
    whole_us: float = 0.0
    noise: float = 0.0
    seed: int = 0
    spread: float = 0.01
    settles: bool = True
    slow: Callable[[int], float] = lambda number: 1.0
    race_factor: Callable[[bytes], float] = lambda graph: 1.0
    observed: int = 0
    structures: int = 0
    races: int = 0

    def structure(self, graph: bytes, feeds: Mapping[str, Array]) -> tuple[Node, ...]:
        """See Observer."""
        self.structures += 1
        return tuple(node for node, _ in self.timed(graph, feeds))

    def observe(self, graph: bytes, feeds: Mapping[str, Array], seconds: float) -> Observation:
        """See Observer."""
        del seconds
        slow = self.slow(self.observed)
        self.observed += 1
        generator = np.random.default_rng([self.seed, self.observed])
        pairs = self.timed(graph, feeds)
        times = [us * slow * self._error(generator) for _, us in pairs]
        whole = (sum(us for _, us in pairs) * self.whole_factor + self.whole_us) * slow * self._error(generator)
        return Observation(
            nodes=tuple(node for node, _ in pairs),
            nodes_us=tuple(times),
            nodes_spread=(self.spread,) * len(pairs),
            latency_us=whole,
            spread=self.spread,
            reference_us=REFERENCE_US * slow,
            runs=9,
        )

    def race(self, graphs: Sequence[bytes], feeds: Mapping[str, Array], seconds: float) -> tuple[Timed, ...]:
        """See Observer."""
        del seconds
        self.races += 1
        if not self.settles:
            raise DeviceError(
                f"measurements do not settle: a ratio of two latencies is uncertain by 40%; up to {MOST_WIDE:.0%} can "
                "be decided by",
                "stop other programs on the device, let it cool down, and try again",
            )
        generator = np.random.default_rng([self.seed, 1000 + self.races])
        times = [self.whole(graph, feeds) * self.race_factor(graph) * self._error(generator) for graph in graphs]
        return tuple(Timed(latency_ms=us / 1e3, against_first=_speedup(times[0] / us)) for us in times)

    def whole(self, graph: bytes, feeds: Mapping[str, Array]) -> float:
        """What a net takes, in us, without noise."""
        return sum(us for _, us in self.timed(graph, feeds)) * self.whole_factor + self.whole_us

    def timed(self, graph: bytes, feeds: Mapping[str, Array]) -> list[tuple[Node, float]]:
        """The nodes of a graph with what each takes, in us, without noise."""
        model = _with_shapes(onnx.load_model_from_string(graph), feeds)
        shapes = {value.name: _shape(value) for value in (*model.graph.value_info, *model.graph.input)}
        shapes |= {value.name: _shape(value) for value in model.graph.output}
        shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        found = []
        for node in model.graph.node:
            inputs = tuple(shapes[name] for name in node.input if name)
            outputs = tuple(shapes[name] for name in node.output)
            attributes = {a.name: str(onnx.helper.get_attribute_value(a)) for a in node.attribute}
            operator = Operator(
                name=node.op_type, inputs=inputs, outputs=outputs, attributes=attributes, dtype="float32"
            )
            us = self.per_node_us + (self._work_us(node, inputs, outputs) if node.op_type in LAYERS else 0.0)
            found.append((Node(value=node.output[0], operator=operator), us))
        return found

    def _work_us(
        self, node: onnx.NodeProto, inputs: Sequence[tuple[int, ...]], outputs: Sequence[tuple[int, ...]]
    ) -> float:
        weight, output = inputs[1], outputs[0]
        sides = [math.ceil(size / self.block) * self.block for size in weight[:2]]
        return self.mac_us * math.prod(sides) * math.prod(weight[2:]) * math.prod(output[2:])

    def _error(self, generator: np.random.Generator) -> float:
        return math.exp(self.noise * generator.standard_normal()) if self.noise else 1.0


def _with_shapes(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> onnx.ModelProto:
    for value in model.graph.input:
        shape = value.type.tensor_type.shape
        shape.ClearField("dim")
        shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=size) for size in feeds[value.name].shape)
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _speedup(ratio: float) -> Speedup:
    return Speedup(ratio=ratio, low=ratio * 0.99, high=ratio * 1.01, confidence=0.95, resamples=2000, seed=0)


def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device on paper need not cool down, and does not mind garbage being collected."""
    collect, race = (importlib.import_module(f"edgeslim.bench.profile.{name}") for name in ("collect", "race"))
    monkeypatch.setattr(collect, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(race, "_LONG_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(collect, "undisturbed", contextlib.nullcontext)


def place_of(profile: DeviceProfile, observer: FakeObserver) -> Place:
    """The device, here."""
    return Place(fingerprint=observer.fingerprint, profile=profile, observer=observer)


def analysed(text: str, shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> ChannelMap:
    """The analysis of a net in ONNX's text form. shapes: of its weights, which are random."""
    generator = np.random.default_rng(seed)
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(generator.standard_normal(shape, np.float32), name)
        for name, shape in shapes.items()
    )
    return analyze(ir.from_proto(onnx.shape_inference.infer_shapes(proto)), set(shapes))


CHAIN = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[1, 3, 16, 16] x) => (float[1, 5] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, first)
  b = Relu (a)
  c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (b, second)
  d = Relu (c)
  e = Conv <pads = [1, 1, 1, 1]> (d, third)
  f = Relu (e)
  g = GlobalAveragePool (f)
  h = Flatten (g)
  y = Gemm <transB = 1> (h, head)
}
"""


def chain(first: int = 48, second: int = 64, third: int = 96) -> ChannelMap:
    """Three convolutions one after the other, and a classifier."""
    return analysed(
        CHAIN,
        {
            "first": (first, 3, 3, 3),
            "second": (second, first, 3, 3),
            "third": (third, second, 3, 3),
            "head": (5, third),
        },
    )


PIECES = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[1, 3, 16, 16] x) => (float[1, 5] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, first)
  b = Relu (a)
  left, right = Split <axis = 1, num_outputs = 2> (b)
  c = Conv <pads = [1, 1, 1, 1]> (left, second)
  d = Relu (c)
  e = Concat <axis = 1> (d, right)
  f = Conv (e, third)
  g = Relu (f)
  h = GlobalAveragePool (g)
  i = Flatten (h)
  y = Gemm <transB = 1> (i, head)
}
"""


def pieces() -> ChannelMap:
    """A layer whose channels are split in two, one half of which is read by a convolution."""
    return analysed(
        PIECES, {"first": (64, 3, 3, 3), "second": (32, 32, 3, 3), "third": (48, 64, 1, 1), "head": (5, 48)}
    )


RESIDUAL = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[1, 3, 16, 16] x) => (float[1, 5, 16, 16] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, stem)
  b = Relu (a)
  c = Conv <pads = [1, 1, 1, 1]> (b, inner)
  d = Relu (c)
  e = Conv <pads = [1, 1, 1, 1]> (d, outer)
  f = Add (b, e)
  g = Relu (f)
  h = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (g, deep)
  i = Relu (h)
  j = ConvTranspose <strides = [2, 2]> (i, up)
  k = Concat <axis = 1> (g, j)
  l = Relu (k)
  y = Conv (l, head)
}
"""


def residual() -> ChannelMap:
    """A skip that adds, one that stands side by side, and a transposed convolution."""
    return analysed(
        RESIDUAL,
        {
            "stem": (32, 3, 3, 3),
            "inner": (48, 32, 3, 3),
            "outer": (32, 48, 3, 3),
            "deep": (64, 32, 3, 3),
            "up": (64, 32, 2, 2),
            "head": (5, 64, 1, 1),
        },
    )


NETS: dict[str, Callable[[], ChannelMap]] = {"chain": chain, "residual": residual, "pieces": pieces}


@functools.cache
def net(name: str) -> ChannelMap:
    """One of NETS, analysed once."""
    return NETS[name]()
