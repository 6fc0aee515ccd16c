"""Blocks with weights, activations, and what joins two maps element by element."""

from __future__ import annotations

import numpy as np

from .builder import DEPTHWISE_MULTIPLIERS, LARGEST, WIDEST, Block, Builder, Map, block, divisor

REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "ReduceL1", "ReduceMin", "ReduceSumSquare",
               "ReduceLogSumExp")  # fmt: skip


@block
def conv(net: Builder, how: Block) -> None:
    """Any kernel, stride, dilation, padding, with and without bias; at times with weights that nobody can mask."""
    x, out = net.x, 1 + how.a
    kernel = [(1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (2, 2)][how.b % 6]
    stride = 2 if how.c % 4 == 3 and min(x.h, x.w) >= 8 else 1
    dilation = 2 if how.d % 5 == 4 and min(x.h, x.w) > 8 else 1
    same = how.c % 3 != 2 or min(x.h, x.w) < 8
    pads = [dilation * (k // 2) if same else 0 for k in kernel]
    frozen = how.d == 11
    inputs = [net.weight(out, x.c, *kernel, frozen=frozen)]
    if how.d % 3:
        inputs.append(net.weight(out, scale=0.5, frozen=how.d == 10))
    attributes = {"strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [*pads, *pads]}
    if min(x.h, x.w) < 3 and max(kernel) > 1 and not same:
        return
    name = net.op("Conv", x.name, *inputs, **attributes)
    h, w = ((n + 2 * p - dilation * (k - 1) - 1) // stride + 1 for n, p, k in zip((x.h, x.w), pads, kernel))
    net.put(Map(name, out, h, w))


@block
def grouped(net: Builder, how: Block) -> None:
    group = divisor(net.x.c, how.a)
    out = group * (1 + how.b % max(12 // group, 1))
    net.put(net.conv(net.x, out, 1 + 2 * (how.c % 2), group=group, bias=bool(how.d % 2)))


@block
def depthwise(net: Builder, how: Block) -> None:
    x, multiplier = net.x, 1 + how.a % 3
    if x.c * multiplier <= WIDEST:
        stride = 2 if how.b % 4 == 3 and min(x.h, x.w) >= 8 else 1
        net.put(net.conv(x, x.c * multiplier, 3, group=x.c, stride=stride, bias=bool(how.c % 2)))


@block
def conv_transpose(net: Builder, how: Block) -> None:
    """Dense, grouped or depthwise; twice the size where that is not too much."""
    x = net.x
    group = [1, 1, divisor(x.c, how.b), x.c][how.a % 4]
    each = 1 + how.c % max(12 // group, 1) if how.a % 4 < 3 else 1 + how.c % 2
    if group == x.c > 1 and each > 1 and not DEPTHWISE_MULTIPLIERS:
        each = 1
    if group * each > WIDEST:
        return
    stride, kernel = (2, 2) if 2 * max(x.h, x.w) <= LARGEST else (1, 3)
    pads = [1] * 4 if kernel == 3 else [0] * 4
    inputs = [net.weight(x.c, each, kernel, kernel, scale=1.3 / np.sqrt(x.c / group))]
    if how.d % 2:
        inputs.append(net.weight(group * each, scale=0.5))
    name = net.op("ConvTranspose", x.name, *inputs, group=group, strides=[stride] * 2, pads=pads)
    net.put(Map(name, group * each, x.h * stride, x.w * stride))


@block
def batch_norm(net: Builder, how: Block) -> None:
    net.put(net.like(net.x, _batch_norm(net, net.x, shared=how.a % 6 == 5)))


def _batch_norm(net: Builder, x: Map, shared: bool = False) -> str:
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


@block
def activation(net: Builder, how: Block) -> None:
    """Those that keep zero and those that do not."""
    operator, attributes = _ACTIVATIONS[(12 * (how.b % 2) + how.a) % len(_ACTIVATIONS)]
    net.put(net.like(net.x, net.op(operator, net.x.name, **attributes)))


@block
def relu(net: Builder, how: Block) -> None:
    net.put(net.like(net.x, net.op("Relu", net.x.name)))


@block
def clip(net: Builder, how: Block) -> None:
    """Bounds around zero, and bounds that zero is outside of."""
    low, high = [(0.0, 6.0), (-1.0, 1.0), (0.2, 3.0), (-2.0, -0.1)][how.a % 4]
    bounds = [net.scalar(low), net.scalar(high)]
    if how.b % 4 == 3:
        bounds = ["", bounds[1]] if how.a % 2 else bounds[:1]
    net.put(net.like(net.x, net.op("Clip", net.x.name, *bounds)))


@block
def prelu(net: Builder, how: Block) -> None:
    shape = [(net.x.c, 1, 1), (1,), (1, net.x.c, 1, 1), (net.x.c, net.x.h, net.x.w)][how.a % 4]
    net.put(net.like(net.x, net.op("PRelu", net.x.name, net.weight(*shape, scale=0.3, shift=0.2))))


@block
def silu(net: Builder, how: Block) -> None:
    gate = net.op("HardSigmoid" if how.a % 2 else "Sigmoid", net.x.name)
    net.put(net.like(net.x, net.op("Mul", net.x.name, gate)))


@block
def residual(net: Builder, how: Block) -> None:
    """Two or three maps of one shape, added or otherwise joined element by element."""
    x = net.x
    others = [net.fitting(x, how.b)] + ([net.fitting(x, how.c)] if how.d % 4 == 3 else [])
    operator = ["Add", "Add", "Add", "Add", "Sub", "Sum", "Max", "Min", "Mean", "Mul", "Div", "Where"][how.a]
    names = [x.name, *(m.name for m in others)]
    if operator == "Div":
        names = [x.name, net.op("Add", net.op("Abs", names[1]), net.scalar(1.0))]
    elif operator == "Where":
        names = [net.op("Greater", names[-1], net.scalar(0.1)), *names[:2]]
    elif operator not in ("Sum", "Max", "Min", "Mean"):
        names = names[:2]
    net.put(net.like(x, net.op(operator, *names)))


@block
def constant(net: Builder, how: Block) -> None:
    """A learnt or a fixed number per channel (or one for all, or an image), added or multiplied."""
    x, operator = net.x, ["Add", "Mul", "Sub", "Add"][how.a % 4]
    shape = [(x.c, 1, 1), (1, x.c, 1, 1), (1,), (1, x.c, x.h, x.w), (x.h, x.w), ()][how.b % 6]
    values = net.rng.standard_normal(shape) * 0.5 + (operator == "Mul")
    if how.c % 4 == 3:
        values = values * (net.rng.random(shape) < 0.5)
    name = net.array(np.asarray(values), frozen=how.d % 3 == 2 or not shape)
    names = [name, x.name] if how.d % 4 == 3 else [x.name, name]
    net.put(net.like(x, net.op(operator, *names)))


@block
def squeeze_excite(net: Builder, how: Block) -> None:
    """A gate per channel from the mean over the image, by convolutions or by linear layers."""
    x, hidden = net.x, 2 + how.b % 5
    act = ["Sigmoid", "HardSigmoid", "Relu", "Tanh"][how.c % 4]
    if how.a % 3 < 2:
        mean = net.op("GlobalAveragePool", x.name) if how.a % 3 else net.op("ReduceMean", x.name, net.ints(2, 3))
        inner = net.conv(Map(mean, x.c, 1, 1), hidden, bias=bool(how.d % 2))
        outer = net.conv(Map(net.op("Relu", inner.name), hidden, 1, 1), x.c)
        gate = net.op(act, outer.name)
    else:
        mean = net.op("ReduceMean", x.name, net.ints(2, 3), keepdims=0)
        inner_name = net.op("Relu", net.op("Gemm", mean, net.weight(hidden, x.c), net.weight(hidden), transB=1))
        outer_name = net.op("MatMul", inner_name, net.weight(hidden, x.c, scale=1.3 / np.sqrt(hidden)))
        gate = net.op(act, net.op("Add", outer_name, net.weight(x.c, scale=0.5)))
        gate = net.op("Unsqueeze", gate, net.ints(2, 3)) if how.d % 2 else net.reshape(gate, x.c, 1, 1, style=how.d)
    net.put(net.like(x, net.op("Mul", x.name, gate)))


@block
def spatial_gate(net: Builder, how: Block) -> None:
    """A gate per pixel: from a convolution, or from statistics over the channels."""
    x = net.x
    if how.a % 2:
        parts = [net.op(o, x.name, net.ints(1)) for o in (REDUCTIONS[how.b % 6], "ReduceMax")]
        both = Map(net.op("Concat", *parts, axis=1), 2, x.h, x.w)
        gate = net.conv(both, 1, 3)
    else:
        gate = net.conv(x, 1, 3)
    net.put(net.like(x, net.op("Mul", x.name, net.op("Sigmoid", gate.name))))
