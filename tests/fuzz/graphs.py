"""Random convolutional nets, written as ONNX, for properties that must hold of every net.

A net is drawn as a list of blocks, each a name and four small numbers, and built from them without further chance but
the values of its weights. So a net that breaks a property shrinks block by block, and its draw is its reproduction:

    build(Net(blocks=(Block("conv", 3), Block("split", 1, 2)), heads=(0,)))

A block that does not fit what came before it (half a pixel, a third of a channel) takes the nearest that does, or does
nothing. Weights have the scale that keeps activations near one: what is lost on the way must be seen at the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from hypothesis import strategies as st
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


def nets(blocks: int = 14) -> st.SearchStrategy[Net]:
    """Nets of up to so many blocks.

    Hypothesis draws a seed and which blocks of the net of that seed there are: left to draw every number itself it
    repeats what it drew, and a hundred nets have a third of the operators.
    """
    some = st.integers(0, 2**blocks - 1)
    return st.builds(_net, st.integers(0, 2**24 - 1), st.builds(int.__or__, some, some), st.just(blocks))


def _net(seed: int, present: int, blocks: int) -> Net:
    rng = np.random.default_rng(seed)
    kinds = sorted(BLOCKS)
    drawn = [Block(kinds[int(rng.integers(len(kinds)))], *rng.integers(0, 12, 4).tolist()) for _ in range(blocks)]
    return Net(
        blocks=tuple(block for i, block in enumerate(drawn) if present >> i & 1),
        heads=(int(rng.integers(0, 8)), *rng.integers(0, 24, rng.integers(0, 3)).tolist()),
        colours=int(rng.integers(1, 5)),
        size=int(rng.choice([8, 12, 16])),
        batch=int(rng.integers(0, 3)),
        dynamic=bool(rng.integers(2)),
        seed=seed,
    )


def build(net: Net) -> Graph:
    """The graph of a draw: checked, with all shapes inferred."""
    builder = _Builder(net)
    for block in net.blocks:
        BLOCKS[block.kind](builder, block)
    outputs = [_head(builder, number) for number in net.heads]
    return builder.finish(list(dict.fromkeys(outputs)))


@dataclass
class _Builder:
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

    def op(self, operator: str, *inputs: str, **attributes: object) -> str:
        return self.ops(operator, 1, *inputs, **attributes)[0]

    def ops(self, operator: str, outputs: int, *inputs: str, **attributes: object) -> list[str]:
        names = [f"t{len(self.nodes)}" if outputs == 1 else f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=f"n{len(self.nodes)}", **attributes))
        return names

    def weight(self, *shape: int, scale: float | None = None, shift: float = 0.0, frozen: bool = False) -> str:
        """Normal values; `scale` is by default that of a kernel (o, i, ...). frozen: no parameter of the model."""
        if scale is None:
            scale = 1.3 / np.sqrt(max(np.prod(shape[1:]), 1))
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


def _divisor(n: int, which: int) -> int:
    """One of the divisors of n."""
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    return divisors[which % len(divisors)]


def _as_rank(values: Array, c: int, style: int) -> Array:
    """A vector per channel in one of the shapes that broadcast over (n, c, h, w)."""
    return values.reshape((c, 1, 1) if style % 2 else (1, c, 1, 1))


# --- the blocks -----------------------------------------------------------------------------------------------

BLOCKS: dict[str, Callable[[_Builder, Block], None]] = {}


def _block(build: Callable[[_Builder, Block], None]) -> Callable[[_Builder, Block], None]:
    BLOCKS[build.__name__.strip("_")] = build
    return build


@_block
def conv(net: _Builder, block: Block) -> None:
    """Any kernel, stride, dilation, padding, with and without bias; at times with weights that nobody can mask."""
    x, out = net.x, 1 + block.a
    kernel = [(1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (2, 2)][block.b % 6]
    stride = 2 if block.c % 4 == 3 and min(x.h, x.w) >= 8 else 1
    dilation = 2 if block.d % 5 == 4 and min(x.h, x.w) > 8 else 1
    same = block.c % 3 != 2 or min(x.h, x.w) < 8
    pads = [dilation * (k // 2) if same else 0 for k in kernel]
    frozen = block.d == 11
    inputs = [net.weight(out, x.c, *kernel, frozen=frozen)]
    if block.d % 3:
        inputs.append(net.weight(out, scale=0.5, frozen=block.d == 10))
    attributes = {"strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [*pads, *pads]}
    if min(x.h, x.w) < 3 and max(kernel) > 1 and not same:
        return
    name = net.op("Conv", x.name, *inputs, **attributes)
    h, w = ((n + 2 * p - dilation * (k - 1) - 1) // stride + 1 for n, p, k in zip((x.h, x.w), pads, kernel))
    net.put(Map(name, out, h, w))


@_block
def grouped(net: _Builder, block: Block) -> None:
    group = _divisor(net.x.c, block.a)
    out = group * (1 + block.b % max(12 // group, 1))
    net.put(net.conv(net.x, out, 1 + 2 * (block.c % 2), group=group, bias=bool(block.d % 2)))


@_block
def depthwise(net: _Builder, block: Block) -> None:
    x, multiplier = net.x, 1 + block.a % 3
    if x.c * multiplier <= WIDEST:
        stride = 2 if block.b % 4 == 3 and min(x.h, x.w) >= 8 else 1
        net.put(net.conv(x, x.c * multiplier, 3, group=x.c, stride=stride, bias=bool(block.c % 2)))


@_block
def conv_transpose(net: _Builder, block: Block) -> None:
    """Dense, grouped or depthwise; twice the size where that is not too much."""
    x = net.x
    group = [1, 1, _divisor(x.c, block.b), x.c][block.a % 4]
    each = 1 + block.c % max(12 // group, 1) if block.a % 4 < 3 else 1 + block.c % 2
    if group == x.c > 1 and each > 1 and not DEPTHWISE_MULTIPLIERS:
        each = 1
    if group * each > WIDEST:
        return
    stride, kernel = (2, 2) if 2 * max(x.h, x.w) <= LARGEST else (1, 3)
    pads = [1] * 4 if kernel == 3 else [0] * 4
    inputs = [net.weight(x.c, each, kernel, kernel, scale=1.3 / np.sqrt(x.c / group))]
    if block.d % 2:
        inputs.append(net.weight(group * each, scale=0.5))
    name = net.op("ConvTranspose", x.name, *inputs, group=group, strides=[stride] * 2, pads=pads)
    net.put(Map(name, group * each, x.h * stride, x.w * stride))


@_block
def batch_norm(net: _Builder, block: Block) -> None:
    net.put(net.like(net.x, _batch_norm(net, net.x, shared=block.a % 6 == 5)))


def _batch_norm(net: _Builder, x: Map, shared: bool = False) -> str:
    scale, shift = net.weight(x.c, scale=0.3, shift=1.0), net.weight(x.c, scale=0.5)
    statistics = [net.weight(x.c, scale=0.3), net.positive(x.c)]
    name = net.op("BatchNormalization", x.name, scale, shift, *statistics)
    if shared:  # two norms of the same tensor with one scale, as a net that is applied twice has
        other = net.op("BatchNormalization", net.op("Relu", name), scale, net.weight(x.c, scale=0.5), *statistics)
        name = net.op("Add", name, other)
    return name


_ACTIVATIONS: tuple[tuple[str, dict[str, float | str]], ...] = (
    ("Relu", {}), ("HardSwish", {}), ("LeakyRelu", {"alpha": 0.2}), ("Gelu", {}), ("Elu", {}), ("Tanh", {}),
    ("Sigmoid", {}), ("HardSigmoid", {}), ("Softplus", {}), ("Cos", {}), ("Abs", {}), ("Selu", {}), ("Mish", {}),
    ("Softsign", {}), ("Celu", {"alpha": 0.7}), ("Gelu", {"approximate": "tanh"}), ("Erf", {}), ("Neg", {}),
    ("Sin", {}), ("ThresholdedRelu", {"alpha": 0.1}), ("Shrink", {"lambd": 0.1}), ("Identity", {}),
)  # fmt: skip


@_block
def activation(net: _Builder, block: Block) -> None:
    """Those that keep zero and those that do not."""
    operator, attributes = _ACTIVATIONS[(12 * (block.b % 2) + block.a) % len(_ACTIVATIONS)]
    net.put(net.like(net.x, net.op(operator, net.x.name, **attributes)))


@_block
def relu(net: _Builder, block: Block) -> None:
    net.put(net.like(net.x, net.op("Relu", net.x.name)))


@_block
def clip(net: _Builder, block: Block) -> None:
    """Bounds around zero, and bounds that zero is outside of."""
    low, high = [(0.0, 6.0), (-1.0, 1.0), (0.2, 3.0), (-2.0, -0.1)][block.a % 4]
    bounds = [net.scalar(low), net.scalar(high)]
    if block.b % 4 == 3:
        bounds = ["", bounds[1]] if block.a % 2 else bounds[:1]
    net.put(net.like(net.x, net.op("Clip", net.x.name, *bounds)))


@_block
def prelu(net: _Builder, block: Block) -> None:
    shape = [(net.x.c, 1, 1), (1,), (1, net.x.c, 1, 1), (net.x.c, net.x.h, net.x.w)][block.a % 4]
    net.put(net.like(net.x, net.op("PRelu", net.x.name, net.weight(*shape, scale=0.3, shift=0.2))))


@_block
def silu(net: _Builder, block: Block) -> None:
    gate = net.op("HardSigmoid" if block.a % 2 else "Sigmoid", net.x.name)
    net.put(net.like(net.x, net.op("Mul", net.x.name, gate)))


@_block
def residual(net: _Builder, block: Block) -> None:
    """Two or three maps of one shape, added or otherwise joined element by element."""
    x = net.x
    others = [net.fitting(x, block.b)] + ([net.fitting(x, block.c)] if block.d % 4 == 3 else [])
    operator = ["Add", "Add", "Add", "Add", "Sub", "Sum", "Max", "Min", "Mean", "Mul", "Div", "Where"][block.a]
    names = [x.name, *(m.name for m in others)]
    if operator == "Div":
        names = [x.name, net.op("Add", net.op("Abs", names[1]), net.scalar(1.0))]
    elif operator == "Where":
        names = [net.op("Greater", names[-1], net.scalar(0.1)), *names[:2]]
    elif operator not in ("Sum", "Max", "Min", "Mean"):
        names = names[:2]
    net.put(net.like(x, net.op(operator, *names)))


@_block
def constant(net: _Builder, block: Block) -> None:
    """A learnt or a fixed number per channel (or one for all, or an image), added or multiplied."""
    x, operator = net.x, ["Add", "Mul", "Sub", "Add"][block.a % 4]
    shape = [(x.c, 1, 1), (1, x.c, 1, 1), (1,), (1, x.c, x.h, x.w), (x.h, x.w), ()][block.b % 6]
    values = net.rng.standard_normal(shape) * 0.5 + (operator == "Mul")
    if block.c % 4 == 3:
        values = values * (net.rng.random(shape) < 0.5)
    name = net.array(np.asarray(values), frozen=block.d % 3 == 2 or not shape)
    names = [name, x.name] if block.d % 4 == 3 else [x.name, name]
    net.put(net.like(x, net.op(operator, *names)))


@_block
def squeeze_excite(net: _Builder, block: Block) -> None:
    """A gate per channel from the mean over the image, by convolutions or by linear layers."""
    x, hidden = net.x, 2 + block.b % 5
    act = ["Sigmoid", "HardSigmoid", "Relu", "Tanh"][block.c % 4]
    if block.a % 3 < 2:
        mean = net.op("GlobalAveragePool", x.name) if block.a % 3 else net.op("ReduceMean", x.name, net.ints(2, 3))
        inner = net.conv(Map(mean, x.c, 1, 1), hidden, bias=bool(block.d % 2))
        outer = net.conv(Map(net.op("Relu", inner.name), hidden, 1, 1), x.c)
        gate = net.op(act, outer.name)
    else:
        mean = net.op("ReduceMean", x.name, net.ints(2, 3), keepdims=0)
        inner_name = net.op("Relu", net.op("Gemm", mean, net.weight(hidden, x.c), net.weight(hidden), transB=1))
        outer_name = net.op("MatMul", inner_name, net.weight(hidden, x.c, scale=1.3 / np.sqrt(hidden)))
        gate = net.op(act, net.op("Add", outer_name, net.weight(x.c, scale=0.5)))
        gate = net.op("Unsqueeze", gate, net.ints(2, 3)) if block.d % 2 else net.reshape(gate, x.c, 1, 1, style=block.d)
    net.put(net.like(x, net.op("Mul", x.name, gate)))


@_block
def spatial_gate(net: _Builder, block: Block) -> None:
    """A gate per pixel: from a convolution, or from statistics over the channels."""
    x = net.x
    if block.a % 2:
        parts = [net.op(o, x.name, net.ints(1)) for o in (_REDUCTIONS[block.b % 6], "ReduceMax")]
        both = Map(net.op("Concat", *parts, axis=1), 2, x.h, x.w)
        gate = net.conv(both, 1, 3)
    else:
        gate = net.conv(x, 1, 3)
    net.put(net.like(x, net.op("Mul", x.name, net.op("Sigmoid", gate.name))))


@_block
def concat(net: _Builder, block: Block) -> None:
    """Branches from here and from before, beside each other; at times on the height."""
    x = net.x
    close = [m for m in net.maps if (m.h, m.w) == (x.h, x.w)]
    others = [close[block.b % len(close)]] + ([net.conv(x, 1 + block.c, 3)] if block.d % 2 else [])
    parts = [x, *others] if block.a % 2 else [*others, x]
    if block.a == 11 and 2 * x.h <= LARGEST:
        name = net.op("Concat", x.name, net.fitting(x, block.b).name, axis=2)
        net.put(Map(name, x.c, 2 * x.h, x.w))
        return
    total = sum(m.c for m in parts)
    if total <= WIDEST:
        net.put(net.like(x, net.op("Concat", *(m.name for m in parts), axis=1 if block.a % 3 else -3), total))


@_block
def inception(net: _Builder, block: Block) -> None:
    """Branches of their own, joined within a join."""
    x = net.x
    first, second = net.conv(x, 1 + block.a % 6), net.conv(x, 1 + block.b % 6, 3)
    inner = net.op("Concat", net.op("Relu", first.name), second.name, axis=1)
    third = net.conv(x, 1 + block.c % 6)
    outer = net.op("Concat", third.name, inner, axis=1)
    if block.d % 2:
        outer = net.op("Relu", outer)
    net.put(net.like(x, outer, first.c + second.c + third.c))


@_block
def split(net: _Builder, block: Block) -> None:
    """Pieces of given sizes, of which some are convolved, joined again, added, gated or dropped."""
    x = net.x
    if x.c < 2:
        return
    equal = block.a % 3 == 2
    if equal:
        pieces = max(_divisor(x.c, block.b), 2)
        pieces = pieces if x.c % pieces == 0 else x.c
        sizes = [x.c // pieces] * pieces
        given = () if block.d % 2 else (net.ints(*sizes),)
        names = net.ops("Split", pieces, x.name, *given, axis=1, **({} if given else {"num_outputs": pieces}))
    else:
        first = 1 + block.b % (x.c - 1)
        sizes = [first, x.c - first]
        if sizes[1] > 1 and block.d % 2:
            sizes = [first, 1, x.c - first - 1]
        names = net.ops("Split", len(sizes), x.name, net.ints(*sizes), axis=1)
    parts = [net.like(x, name, size) for name, size in zip(names, sizes)]
    way = block.c % 5
    if equal and way == 3:
        net.put(net.like(x, net.op("Mul", names[0], net.op("Sigmoid", names[1])), sizes[0]))
    elif equal and way == 4:
        net.put(net.like(x, net.op("Sum", *names), sizes[0]))
    elif way == 0:
        net.put(parts[block.d % len(parts)])
    elif way == 1:  # C2f: everything, and what was made of the last piece
        made = net.conv(parts[-1], parts[-1].c, 3)
        names = [*names, net.op("Relu", made.name)]
        if x.c + made.c <= WIDEST:
            net.put(net.like(x, net.op("Concat", *names, axis=1), x.c + made.c))
    else:
        made_name = [
            lambda n: net.op("Relu", n),
            lambda n: net.op("MaxPool", n, kernel_shape=[3, 3], pads=[1] * 4),
            lambda n: net.op("Mul", n, net.op("GlobalAveragePool", n)),
            lambda n: net.op("Softmax", n, axis=3),
            lambda n: net.op("Sub", n, net.op("ReduceMax", n, net.ints(2, 3))),
        ][block.d % 5](names[0])
        names = [made_name, *names[1:]][:: -1 if way == 2 else 1]
        net.put(net.like(x, net.op("Concat", *names, axis=1), x.c))


@_block
def slices(net: _Builder, block: Block) -> None:
    """Some of the channels, by bounds from either end, with any step; or space, halved or cropped."""
    x = net.x
    low = block.a % x.c
    high = low + 1 + block.b % (x.c - low)
    way = block.c % 6
    if way == 0:
        name, c = net.op("Slice", x.name, net.ints(low), net.ints(high), net.ints(1)), high - low
    elif way == 1:
        name, c = net.op("Slice", x.name, net.ints(low - x.c), net.ints(np.iinfo(np.int64).max), net.ints(1)), x.c - low
    elif way == 2:
        name = net.op("Slice", x.name, net.ints(low), net.ints(x.c), net.ints(-3), net.ints(2))
        c = len(range(low, x.c, 2))
    elif way == 3 and min(x.h, x.w) >= 8:  # the focus stem
        corners = [(0, 0), (1, 0), (0, 1), (1, 1)][: 2 + block.d % 3]
        ends = net.ints(x.h, x.w)
        parts = [net.op("Slice", x.name, net.ints(*p), ends, net.ints(2, 3), net.ints(2, 2)) for p in corners]
        if x.c * len(parts) > WIDEST or x.h % 2 or x.w % 2:
            return
        net.put(Map(net.op("Concat", *parts, axis=1), x.c * len(parts), x.h // 2, x.w // 2))
        return
    elif way == 4:  # both ends, in one order or the other
        first = net.op("Slice", x.name, net.ints(0), net.ints(high), net.ints(1))
        rest = net.op("Slice", x.name, net.ints(low), net.ints(x.c), net.ints(1), net.ints(1))
        name, c = net.op("Concat", *((rest, first) if block.d % 2 else (first, rest)), axis=1), high + x.c - low
        if c > WIDEST:
            return
    else:
        name = net.op("Slice", x.name, net.ints(-1), net.ints(-x.c - 1), net.ints(1), net.ints(-1))
        c = x.c
    net.put(net.like(x, name, c))


@_block
def gather(net: _Builder, block: Block) -> None:
    """Channels by their numbers: in another order, some of them, some twice; or a single one."""
    x = net.x
    order = net.rng.permutation(x.c)
    if block.a % 4 == 3:
        index = net.array(np.zeros(()), frozen=True)
        net.initializers[index] = np.asarray(int(order[0]), np.int64)
        name = net.op("Unsqueeze", net.op("Gather", x.name, index, axis=1), net.ints(1))
        net.put(net.like(x, net.op("Concat", x.name, name, axis=1), x.c + 1))
        return
    if block.a % 4 == 1:
        order = order[: 1 + block.b % x.c]
    elif block.a % 4 == 2:
        order = np.concatenate([order, order[: 1 + block.b % x.c]])
    if block.c % 3 == 2:
        order = order - x.c
    if len(order) <= WIDEST:
        net.put(net.like(x, net.op("Gather", x.name, net.ints(*order.tolist()), axis=1), len(order)))


@_block
def shuffle(net: _Builder, block: Block) -> None:
    x = net.x
    group = _divisor(x.c, block.a)
    wide = net.reshape(x.name, group, x.c // group, x.h, x.w, style=block.b)
    turned = net.op("Transpose", wide, perm=[0, 2, 1, 3, 4])
    net.put(net.like(x, net.reshape(turned, x.c, x.h, x.w, style=block.c)))


@_block
def channels_last(net: _Builder, block: Block) -> None:
    """To (n, h, w, c) and back, with linear layers, a norm or a plain bias in between."""
    x, hidden = net.x, 2 + block.a % 9
    name = net.op("Transpose", x.name, perm=[0, 2, 3, 1])
    if block.c % 3 == 2:
        name = net.op("LayerNormalization", name, net.positive(x.c), net.weight(x.c, scale=0.5), axis=-1)
    name = net.op("MatMul", name, net.weight(x.c, hidden, scale=1.3 / np.sqrt(x.c)))
    if block.b % 2:
        name = net.op("Add", name, net.weight(hidden, scale=0.5))
    name = net.op(["Relu", "Gelu", "Sigmoid"][block.d % 3], name)
    out = x.c if block.d % 2 else 1 + block.b
    kernel = net.weight(out, hidden, scale=1.3 / np.sqrt(hidden))
    name = net.op("MatMul", name, net.op("Transpose", kernel, perm=[1, 0]))
    name = net.op("Transpose", name, perm=[0, 3, 1, 2])
    if out == x.c and block.c % 2:
        name = net.op("Add", x.name, name)
    net.put(net.like(x, name, out))


@_block
def tokens(net: _Builder, block: Block) -> None:
    """(n, c, h * w): linear layers over the channels, or over the pixels, as mixers have them."""
    x, pixels = net.x, net.x.h * net.x.w
    if pixels > 64 and block.a % 3 == 2:
        return
    flat = net.reshape(x.name, x.c, pixels, style=block.b)
    if block.a % 3 == 2:
        mixed = net.op("MatMul", flat, net.weight(pixels, pixels))
        net.put(net.like(x, net.reshape(net.op("Relu", mixed), x.c, x.h, x.w, style=block.c)))
        return
    out = 1 + block.d
    if block.a % 3:  # a kernel on the left
        name = net.op("MatMul", net.weight(out, x.c), flat)
    else:
        rows = net.op("Transpose", flat, perm=[0, 2, 1])
        name = net.op("MatMul", rows, net.weight(x.c, out, scale=1.3 / np.sqrt(x.c)))
        name = net.op("Transpose", net.op("Add", name, net.weight(out, scale=0.5)), perm=[0, 2, 1])
    net.put(net.like(x, net.reshape(name, out, x.h, x.w, style=block.c), out))


@_block
def einsum(net: _Builder, block: Block) -> None:
    x, out = net.x, 1 + block.a
    kernel = net.weight(out, x.c)
    if block.b % 2:
        name = net.op("Einsum", x.name, kernel, equation="nchw,oc->nohw")
    else:
        name = net.op("Einsum", x.name, net.conv(x, x.c).name, equation="nchw,nchw->nchw")
        out = x.c
    net.put(net.like(x, name, out))


@_block
def shared(net: _Builder, block: Block) -> None:
    """One kernel or bias with two readers."""
    x, way = net.x, block.a % 6
    if way == 0:  # two inputs, one convolution
        kernel, bias = net.weight(1 + block.b, x.c, 1, 1), net.weight(1 + block.b, scale=0.5)
        names = [net.op("Conv", v, kernel, bias) for v in (x.name, net.op("Relu", x.name))]
        net.put(net.like(x, net.op("Concat" if block.c % 2 else "Add", *names, **({"axis": 1} if block.c % 2 else {})),
                         (1 + block.b) * (1 + block.c % 2)))  # fmt: skip
    elif way == 1:  # the same layer twice in a row: its output is its input
        kernel = net.weight(x.c, x.c, 3, 3)
        once = net.op("Relu", net.op("Conv", x.name, kernel, pads=[1] * 4))
        net.put(net.like(x, net.op("Conv", once, kernel, pads=[1] * 4)))
    elif way == 2:  # there and back with one kernel
        kernel = net.weight(2 + block.b, x.c, 1, 1)
        hidden = net.op("Relu", net.op("Conv", x.name, kernel))
        net.put(net.like(x, net.op("ConvTranspose", hidden, kernel)))
    elif way == 3:  # a bias that is also a scale
        vector, out = net.weight(2 + block.b, scale=0.3, shift=0.7), 2 + block.b
        name = net.op("Conv", x.name, net.weight(out, x.c, 1, 1), vector)
        net.put(net.like(x, net.op("Mul", name, net.op("Unsqueeze", vector, net.ints(1, 2))), out))
    elif way == 4:  # one bias, two layers
        bias, out = net.weight(2 + block.b, scale=0.5), 2 + block.b
        first = net.op("Relu", net.op("Conv", x.name, net.weight(out, x.c, 1, 1), bias))
        second = net.op("Conv", first, net.weight(out, out, 1, 1), bias)
        net.put(net.like(x, second, out))
    else:  # one layer on an early and on a late map
        early = net.fitting(x, block.c)
        kernel = net.weight(x.c, 1, 3, 3)
        names = [net.op("Conv", v, kernel, pads=[1] * 4, group=x.c) for v in (x.name, early.name)]
        net.put(net.like(x, net.op("Add", *names)))


@_block
def pool(net: _Builder, block: Block) -> None:
    x = net.x
    operator = ["MaxPool", "AveragePool", "MaxPool", "AveragePool", "LpPool"][block.a % 5]
    if min(x.h, x.w) < 4:
        return
    extra: dict[str, object] = {"count_include_pad": block.c % 2} if operator == "AveragePool" else {}
    if block.b % 3 == 2:
        name = net.op(operator, x.name, kernel_shape=[3, 3], pads=[1] * 4, **extra)
        net.put(net.like(x, name))
    else:
        net.put(Map(net.op(operator, x.name, kernel_shape=[2, 2], strides=[2, 2], **extra), x.c, x.h // 2, x.w // 2))


@_block
def resize(net: _Builder, block: Block) -> None:
    """Twice the size, by scales or by sizes, the latter written down or read off another map."""
    x = net.x
    mode: dict[str, object] = {"mode": ["nearest", "linear"][block.a % 2]}
    if block.b % 4 == 3:
        other = net.maps[block.c % len(net.maps)]
        sizes = net.op("Shape", other.name, start=2)
        whole = net.op("Concat", net.op("Shape", x.name, end=2), sizes, axis=0)
        net.put(Map(net.op("Resize", x.name, "", "", whole, **mode), x.c, other.h, other.w))
        return
    if 2 * max(x.h, x.w) > LARGEST:
        return
    if block.b % 4 == 2:
        name = net.op("Resize", x.name, "", "", net.ints(2 * x.h, 2 * x.w), axes=[2, 3], **mode)
    elif block.b % 4 == 1 and net.net.batch:
        name = net.op("Resize", x.name, "", "", net.ints(net.net.batch, x.c, 2 * x.h, 2 * x.w), **mode)
    else:
        name = net.op("Resize", x.name, "", net.array(np.asarray([1.0, 1, 2, 2]), frozen=True), **mode)
    net.put(Map(name, x.c, 2 * x.h, 2 * x.w))


@_block
def pad(net: _Builder, block: Block) -> None:
    """Space or channels, with zeros, with a number, or with what is there; a negative amount crops."""
    x, way = net.x, block.a % 6
    if max(x.h, x.w) + 2 > LARGEST or x.c + 3 > WIDEST:
        return
    if way < 2:
        value = (net.scalar(0.7),) if way else ()
        net.put(Map(net.op("Pad", x.name, net.ints(0, 0, 1, 1, 0, 0, 1, 1), *value), x.c, x.h + 2, x.w + 2))
    elif way == 2:
        mode = ["reflect", "edge"][block.b % 2]
        amounts = net.ints(0, 0, 1, 0, 0, 0, 1, 0)
        net.put(Map(net.op("Pad", x.name, amounts, mode=mode), x.c, x.h + 2, x.w) if x.h > 1 else x)
    elif way == 3:
        low, high = block.b % 3, block.c % 3
        value = net.scalar(0.5 if block.d % 2 else 0.0)
        net.put(net.like(x, net.op("Pad", x.name, net.ints(low, high), value, net.ints(1)), x.c + low + high))
    elif way == 4 and x.h > 4:
        net.put(Map(net.op("Pad", x.name, net.ints(0, 0, -1, 0, 0, 0, -1, 0)), x.c, x.h - 2, x.w))
    elif way == 5 and x.c > 2:
        net.put(net.like(x, net.op("Pad", x.name, net.ints(-1, 0), net.scalar(0.0), net.ints(1)), x.c - 1))


@_block
def depth_to_space(net: _Builder, block: Block) -> None:
    x = net.x
    if 2 * max(x.h, x.w) > LARGEST:
        return
    if x.c % 4:
        x = net.conv(x, 4 * (1 + block.b % 3))
    name = net.op("DepthToSpace", x.name, blocksize=2, mode=["DCR", "CRD"][block.a % 2])
    net.put(Map(name, x.c // 4, 2 * x.h, 2 * x.w))


@_block
def pixel_shuffle(net: _Builder, block: Block) -> None:
    """DepthToSpace as reshapes and a transpose."""
    x = net.x
    if 2 * max(x.h, x.w) > LARGEST:
        return
    if x.c % 4:
        x = net.conv(x, 4 * (1 + block.a % 3))
    c = x.c // 4
    wide = net.reshape(x.name, *((c, 2, 2) if block.b % 2 else (2, 2, c)), x.h, x.w, style=block.c)
    turned = net.op("Transpose", wide, perm=[0, 1, 4, 2, 5, 3] if block.b % 2 else [0, 3, 4, 1, 5, 2])
    net.put(Map(net.reshape(turned, c, 2 * x.h, 2 * x.w, style=block.d), c, 2 * x.h, 2 * x.w))


@_block
def space_to_depth(net: _Builder, block: Block) -> None:
    x = net.x
    if x.h % 2 or x.w % 2 or 4 * x.c > WIDEST:
        return
    if block.a % 2:
        wide = net.reshape(x.name, x.c, x.h // 2, 2, x.w // 2, 2, style=block.b)
        turned = net.op("Transpose", wide, perm=[0, 3, 5, 1, 2, 4] if block.c % 2 else [0, 1, 3, 5, 2, 4])
        name = net.reshape(turned, 4 * x.c, x.h // 2, x.w // 2, style=block.d)
    else:
        name = net.op("SpaceToDepth", x.name, blocksize=2)
    net.put(Map(name, 4 * x.c, x.h // 2, x.w // 2))


_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "ReduceL1", "ReduceMin", "ReduceSumSquare",
               "ReduceLogSumExp")  # fmt: skip


@_block
def spatial_reduction(net: _Builder, block: Block) -> None:
    """A number per channel (or per channel and row), joined with what it was made of."""
    x, operator = net.x, _REDUCTIONS[block.a % len(_REDUCTIONS)]
    over = [(2, 3), (2,), (3,)][block.b % 3]
    name = net.op(operator, x.name, net.ints(*over)) if block.d % 4 else net.op("GlobalMaxPool", x.name)
    small = net.op("Tanh", net.op("Mul", name, net.scalar(0.2)))
    net.put(net.like(x, net.op(["Add", "Mul"][block.c % 2], x.name, small)))


@_block
def channel_reduction(net: _Builder, block: Block) -> None:
    """A number per pixel, beside the channels, added to them or scaling them."""
    x, operator = net.x, _REDUCTIONS[block.a % len(_REDUCTIONS)]
    name = net.op(operator, x.name, net.ints(1), keepdims=block.d % 2)
    name = name if block.d % 2 else net.op("Unsqueeze", name, net.ints(1))
    small = net.op("Mul", name, net.scalar(0.3))
    if block.b % 3 == 2:
        net.put(net.like(x, net.op("Concat", x.name, small, axis=1), x.c + 1))
    else:
        net.put(net.like(x, net.op(["Add", "Mul"][block.b % 3], x.name, net.op("Tanh", small))))


@_block
def attention(net: _Builder, block: Block) -> None:
    """softmax(q k') v over the pixels, with heads; or over the channels."""
    x = net.x
    if x.h * x.w > 100:
        return
    heads = 1 + block.a % 2
    each, value_each, pixels = 1 + block.b % 4, 1 + block.c % 4, x.h * x.w
    q, k, v = (net.conv(x, heads * n, bias=bool(block.d % 2)) for n in (each, each, value_each))
    names = [net.reshape(m.name, heads, m.c // heads, pixels, style=block.d + i) for i, m in enumerate((q, k, v))]
    if block.a % 3 == 2 and each == value_each:  # the channels attend to each other
        scores = net.op("MatMul", names[0], net.op("Transpose", names[1], perm=[0, 1, 3, 2]))
        mixed = net.op("MatMul", net.op("Softmax", net.op("Mul", scores, net.scalar(0.1)), axis=-1), names[2])
    else:
        scores = net.op("MatMul", net.op("Transpose", names[0], perm=[0, 1, 3, 2]), names[1])
        scores = net.op("Softmax", net.op("Mul", scores, net.scalar(each**-0.5)), axis=-1)
        mixed = net.op("MatMul", names[2], net.op("Transpose", scores, perm=[0, 1, 3, 2]))
    name = net.reshape(mixed, v.c, x.h, x.w, style=block.d + 1)
    net.put(net.conv(net.like(x, name, v.c), x.c if block.d % 3 else 1 + block.c))


@_block
def fused_attention(net: _Builder, block: Block) -> None:
    """One projection for q, k and v, split afterwards."""
    x = net.x
    if x.h * x.w > 100:
        return
    each, pixels = 1 + block.a % 4, x.h * x.w
    joint = net.conv(x, 3 * each)
    flat = net.reshape(joint.name, 3 * each, pixels, style=block.b)
    q, k, v = net.ops("Split", 3, flat, net.ints(each, each, each), axis=1)
    scores = net.op("Softmax", net.op("MatMul", net.op("Transpose", q, perm=[0, 2, 1]), k), axis=-1)
    mixed = net.op("MatMul", v, net.op("Transpose", scores, perm=[0, 2, 1]))
    net.put(net.conv(net.like(x, net.reshape(mixed, each, x.h, x.w, style=block.c), each), 1 + block.d))


@_block
def norm(net: _Builder, block: Block) -> None:
    """Norms over the image, over groups, over channels."""
    x, way = net.x, block.a % 7
    scale, shift = net.positive(x.c), net.weight(x.c, scale=0.5)
    if way < 2:
        name = net.op("InstanceNormalization", x.name, scale, shift, epsilon=1e-2)
    elif way == 2:
        name = net.op("GroupNormalization", x.name, scale, shift, num_groups=_divisor(x.c, block.b), epsilon=1e-2)
    elif way == 3:
        last = net.op("Transpose", x.name, perm=[0, 2, 3, 1])
        last = net.op("LayerNormalization", last, scale, shift, epsilon=1e-2)
        name = net.op("Transpose", last, perm=[0, 3, 1, 2])
    elif way == 4:  # over the image alone
        values = [net.positive(x.h, x.w), net.weight(x.h, x.w, scale=0.5)]
        name = net.op("LayerNormalization", x.name, *values, axis=2, epsilon=1e-2)
    elif way == 5:  # a group norm as exporters write it
        group = _divisor(x.c, block.b)
        flat = net.reshape(x.name, group, x.c // group * x.h * x.w, style=block.c)
        ones, zeros = (net.array(np.full(group, v), frozen=True) for v in (1.0, 0.0))
        flat = net.op("InstanceNormalization", flat, ones, zeros, epsilon=1e-2)
        name = net.reshape(flat, x.c, x.h, x.w, style=block.d)
        name = net.op("Mul", name, net.array(net.rng.uniform(0.5, 1.5, (x.c, 1, 1))))
        name = net.op("Add", name, net.weight(x.c, 1, 1, scale=0.5))
    else:
        name = net.op("LRN", x.name, size=3) if block.b % 2 else net.op("Softmax", x.name, axis=1)
    net.put(net.like(x, name))


@_block
def exotic(net: _Builder, block: Block) -> None:
    """What is seen now and then."""
    x, way = net.x, block.a
    if way == 0:
        name = net.op("Trilu", x.name)
    elif way == 1:
        kept = net.ints(*range(x.w))
        net.initializers[kept] = np.arange(x.w) > 0
        if x.w < 2:
            return
        net.put(Map(net.op("Compress", x.name, kept, axis=3), x.c, x.h, x.w - 1))
        return
    elif way == 2:
        name = net.op("CumSum", x.name, net.ints(3))
        name = net.op("Mul", name, net.scalar(0.3))
    elif way == 3:
        best = net.ops("TopK", 2, x.name, net.ints(1), axis=2)[0]
        name = net.op("Sub", x.name, best)
    elif way == 4 and 2 * x.c <= WIDEST:
        net.put(net.like(x, net.op("Tile", x.name, net.ints(1, 2, 1, 1)), 2 * x.c))
        return
    elif way == 5:
        levels = [net.array(np.asarray(0.05), frozen=True), net.array(np.asarray(0), frozen=True)]
        net.initializers[levels[1]] = np.asarray(3 * (block.b % 2), np.int8)
        name = net.op("DequantizeLinear", net.op("QuantizeLinear", x.name, *levels), *levels)
    elif way == 6:
        name = net.op("LpNormalization", x.name, axis=1 + block.b % 3, p=2)
    elif way == 7:
        mean = net.op("GlobalAveragePool", x.name)
        name = net.op("Sub", x.name, net.op("Expand", mean, net.op("Shape", x.name)))
    elif way == 8:
        name = net.op("Pow", net.op("Abs", x.name), net.scalar(1.0 + block.b % 2))
    elif way == 9:
        name = net.op("Cast", net.op("Cast", x.name, to=TensorProto.FLOAT16), to=TensorProto.FLOAT)
    elif way == 10:
        grown = net.op("Unsqueeze", x.name, net.ints(block.b % 4))
        name = net.op("Squeeze", net.op("Relu", grown), net.ints(block.b % 4))
    else:
        half = net.op("Mul", net.op("ArgMax", x.name, axis=1 + block.b % 3), net.ints(1))
        name = net.op("Add", x.name, net.op("Mul", net.op("Cast", half, to=TensorProto.FLOAT), net.scalar(0.1)))
    net.put(net.like(x, name))


@_block
def back(net: _Builder, block: Block) -> None:
    """Go on from an earlier map: branches that never meet, or meet much later."""
    net.x = net.maps[block.a % len(net.maps)]


def _head(net: _Builder, number: int) -> tuple[str, int]:
    """An output and its rank: linear layers on a flattened or a pooled map, a convolution, or a map as it is."""
    way, which = number % 8, number // 8
    x = net.x if which == 0 else net.maps[-which * 2 % len(net.maps)]
    if way == 0:
        return net.conv(x, 3, bias=bool(which % 2)).name, 4
    if way == 7:
        return net.op("Relu", x.name), 4
    if way in (1, 2):
        pooled = x
        while pooled.h * pooled.w * pooled.c > 400 and min(pooled.h, pooled.w) > 1:
            name = net.op("AveragePool", pooled.name, kernel_shape=[2, 2], strides=[2, 2])
            pooled = Map(name, x.c, pooled.h // 2, pooled.w // 2)
        width = pooled.c * pooled.h * pooled.w
        flat = net.op("Flatten", pooled.name) if way == 1 else net.reshape(pooled.name, width, style=which + 2)
    elif way == 3:
        flat, width = net.op("Flatten", net.op("GlobalAveragePool", x.name)), x.c
    else:
        flat, width = net.op("ReduceMean", x.name, net.ints(2, 3), keepdims=0), x.c
    hidden = net.op("Gemm", flat, net.weight(6, width), net.weight(6, scale=0.5), transB=1)
    hidden = net.op(["Relu", "HardSwish", "Sigmoid"][which % 3], hidden)
    if way in (5, 6):  # logits per class and per box of the image, as a detector has them
        kernel = net.weight(6, 4, scale=0.5)
        return net.op("Add", net.op("MatMul", hidden, kernel), net.weight(4, scale=0.5)), 2
    return net.op("Gemm", hidden, net.weight(6, 4, scale=0.5), net.weight(4, scale=0.5), alpha=0.5), 2
