"""A graph in the making, and the pieces that blocks are built from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.generic]

OPSET = 21
DEPTHWISE_MULTIPLIERS = False
"""Off, because the rule of ConvTranspose loses count of the outputs of a depthwise kernel whose input is fixed."""
LARGEST, WIDEST = 20, 40
"""Pixels a side, channels: blocks that would exceed them do nothing."""


@dataclass(frozen=True, slots=True)
class Block:
    """One step of a net: what it is, and numbers that say how."""

    kind: str
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0


@dataclass(frozen=True, slots=True)
class Net:
    """The draw of a net. heads: how each output is made.

    batch: a number, or 0 for one that is unknown.  dynamic: height and width are unknown to the graph.
    """

    blocks: tuple[Block, ...]
    heads: tuple[int, ...] = (0,)
    colours: int = 3
    size: int = 8
    batch: int = 2
    dynamic: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A net as ONNX, with the initializers that a trainer could set to zero."""

    model: onnx.ModelProto
    parameters: frozenset[str]
    input_shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Map:
    """A feature map (n, c, h, w)."""

    name: str
    c: int
    h: int
    w: int


@dataclass
class Builder:
    """A graph in the making. `x` is the feature map that the next block reads, `maps` are all that there were."""

    net: Net
    x: Map = field(init=False)
    maps: list[Map] = field(init=False)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, Array] = field(default_factory=dict)
    parameters: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.net.seed)
        self.x = Map("x", self.net.colours, self.net.size, self.net.size)
        self.maps = [self.x]
        # Nothing is prunable in front of the first convolution.
        self.put(self.conv(self.x, 4 + self.net.seed % 7, 3))

    # --- pieces --------------------------------------------------------------------------------------------

    def op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        return self.ops(operator, 1, *inputs, **attributes)[0]

    def ops(self, operator: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        names = [f"t{len(self.nodes)}" if outputs == 1 else f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=f"n{len(self.nodes)}", **attributes))
        return names

    def weight(self, *shape: int, scale: float | None = None, shift: float = 0.0, frozen: bool = False) -> str:
        """Normal values; `scale` is by default that of a kernel (o, i, ...). frozen: no parameter of the model."""
        if scale is None:
            scale = 1.3 / math.sqrt(max(math.prod(shape[1:]), 1))
        return self.array(self.rng.standard_normal(shape) * scale + shift, frozen=frozen)

    def positive(self, *shape: int) -> str:
        return self.array(self.rng.uniform(0.5, 1.5, shape))

    def array(self, values: Array, frozen: bool = False) -> str:
        name = f"c{len(self.initializers)}" if frozen else f"w{len(self.initializers)}"
        self.initializers[name] = np.asarray(values, np.float32)
        if not frozen:
            self.parameters.add(name)
        return name

    def scalar(self, value: float) -> str:
        return self.array(np.asarray(value), frozen=True)

    def ints(self, *values: int) -> str:
        name = f"i{len(self.initializers)}"
        self.initializers[name] = np.asarray(values, np.int64)
        return name

    def put(self, x: Map) -> None:
        """`x` is what the next block reads."""
        self.x = x
        self.maps.append(x)

    def like(self, x: Map, name: str, c: int | None = None) -> Map:
        return Map(name, x.c if c is None else c, x.h, x.w)

    def conv(self, x: Map, out: int, kernel: int = 1, *, group: int = 1, stride: int = 1, bias: bool = True) -> Map:
        """A convolution that keeps the size, or divides it by `stride`."""
        inputs = [self.weight(out, x.c // group, kernel, kernel)] + ([self.weight(out, scale=0.5)] if bias else [])
        pads = [kernel // 2] * 4
        name = self.op("Conv", x.name, *inputs, group=group, pads=pads, strides=[stride] * 2)
        h, w = ((n + 2 * pads[0] - kernel) // stride + 1 for n in (x.h, x.w))
        return Map(name, out, h, w)

    def fitting(self, x: Map, which: int) -> Map:
        """A map of the shape of `x`: one of the earlier ones, or one made for it."""
        same = [m for m in self.maps[1:] if (m.c, m.h, m.w) == (x.c, x.h, x.w) and m != x]
        if same and which % 3:
            return same[which % len(same)]
        close = [m for m in self.maps if (m.h, m.w) == (x.h, x.w)]
        return self.conv(close[which % len(close)], x.c, 1 + 2 * (which % 2))

    def reshape(self, name: str, *tail: int, style: int = 0) -> str:
        """To (n, *tail), with the target written in one of the ways that exporters have."""
        batch = self.net.batch
        if style % 4 == 0 and batch:
            return self.op("Reshape", name, self.ints(batch, *tail))
        if style % 4 == 1:
            sizes = self.op("Shape", name)
            first = self.op("Gather", sizes, self.ints(0), axis=0)
            return self.op("Reshape", name, self.op("Concat", first, self.ints(*tail), axis=0))
        if style % 4 == 2:
            wild = style // 4 % len(tail)
            return self.op("Reshape", name, self.ints(0, *(-1 if i == wild else n for i, n in enumerate(tail))))
        return self.op("Reshape", name, self.ints(-1, *tail))

    def finish(self, outputs: Sequence[tuple[str, int]]) -> Graph:
        """The graph with these outputs, each a name and a rank."""
        batch, size, dynamic = self.net.batch or "n", self.net.size, self.net.dynamic

        def known(x: Map) -> tuple[int | str | None, ...]:
            return (batch, x.c, *((None, None) if dynamic else (x.h, x.w)))

        shape = (batch, self.net.colours, *(("h", "w") if dynamic else (size, size)))
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in outputs],
            [numpy_helper.from_array(a, name) for name, a in self.initializers.items()],
            # Checked against what is inferred. Without it nothing is known behind GroupNormalization, and the rule of
            # Reshape loses the labels of an input of unknown rank.
            value_info=[helper.make_tensor_value_info(m.name, TensorProto.FLOAT, known(m)) for m in self.maps[1:]],
        )
        _drop_unused(graph)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, ir_version=10, opset_imports=opsets, producer_name="edgeslim")
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model)
        used = {i.name for i in model.graph.initializer}
        concrete = (self.net.batch or 2, self.net.colours, size, size)
        return Graph(model=model, parameters=frozenset(self.parameters & used), input_shape=concrete)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Leave what the outputs need."""
    needed, kept = {o.name for o in graph.output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    weights = [i for i in graph.initializer if i.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept[::-1])
    graph.initializer.extend(weights)


def divisor(n: int, which: int) -> int:
    """One of the divisors of n."""
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    return divisors[which % len(divisors)]


BLOCKS: dict[str, Callable[[Builder, Block], None]] = {}
"""What a net is made of; the modules beside this one fill the table."""


def block(build: Callable[[Builder, Block], None]) -> Callable[[Builder, Block], None]:
    """Register a block under the name of its function."""
    BLOCKS[build.__name__] = build
    return build
