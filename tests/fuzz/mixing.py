"""Blocks over other axes than an image has, with weights that are read twice, and that take statistics."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from .builder import WIDEST, Block, Builder, Map, block, divisor
from .layers import REDUCTIONS


@block
def channels_last(net: Builder, how: Block) -> None:
    """To (n, h, w, c) and back, with linear layers, a norm or a plain bias in between."""
    x, hidden = net.x, 2 + how.a % 9
    name = net.op("Transpose", x.name, perm=[0, 2, 3, 1])
    if how.c % 3 == 2:
        name = net.op("LayerNormalization", name, net.positive(x.c), net.weight(x.c, scale=0.5), axis=-1)
    name = net.op("MatMul", name, net.weight(x.c, hidden, scale=1.3 / np.sqrt(x.c)))
    if how.b % 2:
        name = net.op("Add", name, net.weight(hidden, scale=0.5))
    name = net.op(["Relu", "Gelu", "Sigmoid"][how.d % 3], name)
    out = x.c if how.d % 2 else 1 + how.b
    kernel = net.weight(out, hidden, scale=1.3 / np.sqrt(hidden))
    name = net.op("MatMul", name, net.op("Transpose", kernel, perm=[1, 0]))
    name = net.op("Transpose", name, perm=[0, 3, 1, 2])
    if out == x.c and how.c % 2:
        name = net.op("Add", x.name, name)
    net.put(net.like(x, name, out))


@block
def tokens(net: Builder, how: Block) -> None:
    """(n, c, h * w): linear layers over the channels, or over the pixels, as mixers have them."""
    x, pixels = net.x, net.x.h * net.x.w
    if pixels > 64 and how.a % 3 == 2:
        return
    flat = net.reshape(x.name, x.c, pixels, style=how.b)
    if how.a % 3 == 2:
        mixed = net.op("MatMul", flat, net.weight(pixels, pixels))
        net.put(net.like(x, net.reshape(net.op("Relu", mixed), x.c, x.h, x.w, style=how.c)))
        return
    out = 1 + how.d
    if how.a % 3:  # a kernel on the left
        name = net.op("MatMul", net.weight(out, x.c), flat)
    else:
        rows = net.op("Transpose", flat, perm=[0, 2, 1])
        name = net.op("MatMul", rows, net.weight(x.c, out, scale=1.3 / np.sqrt(x.c)))
        name = net.op("Transpose", net.op("Add", name, net.weight(out, scale=0.5)), perm=[0, 2, 1])
    net.put(net.like(x, net.reshape(name, out, x.h, x.w, style=how.c), out))


@block
def einsum(net: Builder, how: Block) -> None:
    x, out = net.x, 1 + how.a
    kernel = net.weight(out, x.c)
    if how.b % 2:
        name = net.op("Einsum", x.name, kernel, equation="nchw,oc->nohw")
    else:
        name = net.op("Einsum", x.name, net.conv(x, x.c).name, equation="nchw,nchw->nchw")
        out = x.c
    net.put(net.like(x, name, out))


@block
def shared(net: Builder, how: Block) -> None:
    """One kernel or bias with two readers."""
    x, way = net.x, how.a % 6
    if way == 0:  # two inputs, one convolution
        kernel, bias = net.weight(1 + how.b, x.c, 1, 1), net.weight(1 + how.b, scale=0.5)
        names = [net.op("Conv", v, kernel, bias) for v in (x.name, net.op("Relu", x.name))]
        net.put(net.like(x, net.op("Concat" if how.c % 2 else "Add", *names, **({"axis": 1} if how.c % 2 else {})),
                         (1 + how.b) * (1 + how.c % 2)))  # fmt: skip
    elif way == 1:  # the same layer twice in a row: its output is its input
        kernel = net.weight(x.c, x.c, 3, 3)
        once = net.op("Relu", net.op("Conv", x.name, kernel, pads=[1] * 4))
        net.put(net.like(x, net.op("Conv", once, kernel, pads=[1] * 4)))
    elif way == 2:  # there and back with one kernel
        kernel = net.weight(2 + how.b, x.c, 1, 1)
        hidden = net.op("Relu", net.op("Conv", x.name, kernel))
        net.put(net.like(x, net.op("ConvTranspose", hidden, kernel)))
    elif way == 3:  # a bias that is also a scale
        vector, out = net.weight(2 + how.b, scale=0.3, shift=0.7), 2 + how.b
        name = net.op("Conv", x.name, net.weight(out, x.c, 1, 1), vector)
        net.put(net.like(x, net.op("Mul", name, net.op("Unsqueeze", vector, net.ints(1, 2))), out))
    elif way == 4:  # one bias, two layers
        bias, out = net.weight(2 + how.b, scale=0.5), 2 + how.b
        first = net.op("Relu", net.op("Conv", x.name, net.weight(out, x.c, 1, 1), bias))
        second = net.op("Conv", first, net.weight(out, out, 1, 1), bias)
        net.put(net.like(x, second, out))
    else:  # one layer on an early and on a late map
        early = net.fitting(x, how.c)
        kernel = net.weight(x.c, 1, 3, 3)
        names = [net.op("Conv", v, kernel, pads=[1] * 4, group=x.c) for v in (x.name, early.name)]
        net.put(net.like(x, net.op("Add", *names)))


@block
def spatial_reduction(net: Builder, how: Block) -> None:
    """A number per channel (or per channel and row), joined with what it was made of."""
    x, operator = net.x, REDUCTIONS[how.a % len(REDUCTIONS)]
    over = [(2, 3), (2,), (3,)][how.b % 3]
    name = net.op(operator, x.name, net.ints(*over)) if how.d % 4 else net.op("GlobalMaxPool", x.name)
    small = net.op("Tanh", net.op("Mul", name, net.scalar(0.2)))
    net.put(net.like(x, net.op(["Add", "Mul"][how.c % 2], x.name, small)))


@block
def channel_reduction(net: Builder, how: Block) -> None:
    """A number per pixel, beside the channels, added to them or scaling them."""
    x, operator = net.x, REDUCTIONS[how.a % len(REDUCTIONS)]
    name = net.op(operator, x.name, net.ints(1), keepdims=how.d % 2)
    name = name if how.d % 2 else net.op("Unsqueeze", name, net.ints(1))
    small = net.op("Mul", name, net.scalar(0.3))
    if how.b % 3 == 2:
        net.put(net.like(x, net.op("Concat", x.name, small, axis=1), x.c + 1))
    else:
        net.put(net.like(x, net.op(["Add", "Mul"][how.b % 3], x.name, net.op("Tanh", small))))


@block
def attention(net: Builder, how: Block) -> None:
    """softmax(q k') v over the pixels, with heads; or over the channels."""
    x = net.x
    if x.h * x.w > 100:
        return
    heads = 1 + how.a % 2
    each, value_each, pixels = 1 + how.b % 4, 1 + how.c % 4, x.h * x.w
    q, k, v = (net.conv(x, heads * n, bias=bool(how.d % 2)) for n in (each, each, value_each))
    names = [net.reshape(m.name, heads, m.c // heads, pixels, style=how.d + i) for i, m in enumerate((q, k, v))]
    if how.a % 3 == 2 and each == value_each:  # the channels attend to each other
        scores = net.op("MatMul", names[0], net.op("Transpose", names[1], perm=[0, 1, 3, 2]))
        mixed = net.op("MatMul", net.op("Softmax", net.op("Mul", scores, net.scalar(0.1)), axis=-1), names[2])
    else:
        scores = net.op("MatMul", net.op("Transpose", names[0], perm=[0, 1, 3, 2]), names[1])
        scores = net.op("Softmax", net.op("Mul", scores, net.scalar(each**-0.5)), axis=-1)
        mixed = net.op("MatMul", names[2], net.op("Transpose", scores, perm=[0, 1, 3, 2]))
    name = net.reshape(mixed, v.c, x.h, x.w, style=how.d + 1)
    net.put(net.conv(net.like(x, name, v.c), x.c if how.d % 3 else 1 + how.c))


@block
def fused_attention(net: Builder, how: Block) -> None:
    """One projection for q, k and v, split afterwards."""
    x = net.x
    if x.h * x.w > 100:
        return
    each, pixels = 1 + how.a % 4, x.h * x.w
    joint = net.conv(x, 3 * each)
    flat = net.reshape(joint.name, 3 * each, pixels, style=how.b)
    q, k, v = net.ops("Split", 3, flat, net.ints(each, each, each), axis=1)
    scores = net.op("Softmax", net.op("MatMul", net.op("Transpose", q, perm=[0, 2, 1]), k), axis=-1)
    mixed = net.op("MatMul", v, net.op("Transpose", scores, perm=[0, 2, 1]))
    net.put(net.conv(net.like(x, net.reshape(mixed, each, x.h, x.w, style=how.c), each), 1 + how.d))


@block
def norm(net: Builder, how: Block) -> None:
    """Norms over the image, over groups, over channels."""
    x, way = net.x, how.a % 7
    scale, shift = net.positive(x.c), net.weight(x.c, scale=0.5)
    if way == 0:
        name = net.op("InstanceNormalization", x.name, scale, shift, epsilon=1e-2)
    elif way < 3:
        name = net.op("GroupNormalization", x.name, scale, shift, num_groups=divisor(x.c, how.b), epsilon=1e-2)
    elif way == 3:
        last = net.op("Transpose", x.name, perm=[0, 2, 3, 1])
        last = net.op("LayerNormalization", last, scale, shift, epsilon=1e-2)
        name = net.op("Transpose", last, perm=[0, 3, 1, 2])
    elif way == 4:  # over the image alone
        values = [net.positive(x.h, x.w), net.weight(x.h, x.w, scale=0.5)]
        name = net.op("LayerNormalization", x.name, *values, axis=2, epsilon=1e-2)
    elif way == 5:  # a group norm as exporters write it
        group = divisor(x.c, how.b)
        flat = net.reshape(x.name, group, x.c // group * x.h * x.w, style=how.c)
        ones, zeros = (net.array(np.full(group, v), frozen=True) for v in (1.0, 0.0))
        flat = net.op("InstanceNormalization", flat, ones, zeros, epsilon=1e-2)
        name = net.reshape(flat, x.c, x.h, x.w, style=how.d)
        name = net.op("Mul", name, net.array(net.rng.uniform(0.5, 1.5, (x.c, 1, 1))))
        name = net.op("Add", name, net.weight(x.c, 1, 1, scale=0.5))
    else:
        name = net.op("LRN", x.name, size=3) if how.b % 2 else net.op("Softmax", x.name, axis=1)
    net.put(net.like(x, name))


@block
def exotic(net: Builder, how: Block) -> None:
    """What is seen now and then."""
    x, way = net.x, how.a
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
        net.initializers[levels[1]] = np.asarray(3 * (how.b % 2), np.int8)
        name = net.op("DequantizeLinear", net.op("QuantizeLinear", x.name, *levels), *levels)
    elif way == 6:
        name = net.op("LpNormalization", x.name, axis=1 + how.b % 3, p=2)
    elif way == 7:
        mean = net.op("GlobalAveragePool", x.name)
        name = net.op("Sub", x.name, net.op("Expand", mean, net.op("Shape", x.name)))
    elif way == 8:
        name = net.op("Pow", net.op("Abs", x.name), net.scalar(1.0 + how.b % 2))
    elif way == 9:
        name = net.op("Cast", net.op("Cast", x.name, to=TensorProto.FLOAT16), to=TensorProto.FLOAT)
    elif way == 10:
        grown = net.op("Unsqueeze", x.name, net.ints(how.b % 4))
        name = net.op("Squeeze", net.op("Relu", grown), net.ints(how.b % 4))
    else:
        half = net.op("Mul", net.op("ArgMax", x.name, axis=1 + how.b % 3), net.ints(1))
        name = net.op("Add", x.name, net.op("Mul", net.op("Cast", half, to=TensorProto.FLOAT), net.scalar(0.1)))
    net.put(net.like(x, name))


@block
def back(net: Builder, how: Block) -> None:
    """Go on from an earlier map: branches that never meet, or meet much later."""
    net.x = net.maps[how.a % len(net.maps)]
