"""Blocks that move channels: joins, splits, picks, reorderings; and those that change the image."""

from __future__ import annotations

import numpy as np

from .builder import LARGEST, WIDEST, Block, Builder, Map, block, divisor


@block
def concat(net: Builder, how: Block) -> None:
    """Branches from here and from before, beside each other; at times on the height."""
    x = net.x
    close = [m for m in net.maps if (m.h, m.w) == (x.h, x.w)]
    others = [close[how.b % len(close)]] + ([net.conv(x, 1 + how.c, 3)] if how.d % 2 else [])
    parts = [x, *others] if how.a % 2 else [*others, x]
    if how.a == 11 and 2 * x.h <= LARGEST:
        name = net.op("Concat", x.name, net.fitting(x, how.b).name, axis=2)
        net.put(Map(name, x.c, 2 * x.h, x.w))
        return
    total = sum(m.c for m in parts)
    if total <= WIDEST:
        net.put(net.like(x, net.op("Concat", *(m.name for m in parts), axis=1 if how.a % 3 else -3), total))


@block
def inception(net: Builder, how: Block) -> None:
    """Branches of their own, joined within a join."""
    x = net.x
    first, second = net.conv(x, 1 + how.a % 6), net.conv(x, 1 + how.b % 6, 3)
    inner = net.op("Concat", net.op("Relu", first.name), second.name, axis=1)
    third = net.conv(x, 1 + how.c % 6)
    outer = net.op("Concat", third.name, inner, axis=1)
    if how.d % 2:
        outer = net.op("Relu", outer)
    net.put(net.like(x, outer, first.c + second.c + third.c))


@block
def split(net: Builder, how: Block) -> None:
    """Pieces of given sizes, of which some are convolved, joined again, added, gated or dropped."""
    x = net.x
    if x.c < 2:
        return
    equal = how.a % 3 == 2
    if equal:
        pieces = max(divisor(x.c, how.b), 2)
        pieces = pieces if x.c % pieces == 0 else x.c
        sizes = [x.c // pieces] * pieces
        given = () if how.d % 2 else (net.ints(*sizes),)
        names = net.ops("Split", pieces, x.name, *given, axis=1, **({} if given else {"num_outputs": pieces}))
    else:
        first = 1 + how.b % (x.c - 1)
        sizes = [first, x.c - first]
        if sizes[1] > 1 and how.d % 2:
            sizes = [first, 1, x.c - first - 1]
        names = net.ops("Split", len(sizes), x.name, net.ints(*sizes), axis=1)
    parts = [net.like(x, name, size) for name, size in zip(names, sizes)]
    way = how.c % 5
    if equal and way == 3:
        net.put(net.like(x, net.op("Mul", names[0], net.op("Sigmoid", names[1])), sizes[0]))
    elif equal and way == 4:
        net.put(net.like(x, net.op("Sum", *names), sizes[0]))
    elif way == 0:
        net.put(parts[how.d % len(parts)])
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
        ][how.d % 5](names[0])
        names = [made_name, *names[1:]][:: -1 if way == 2 else 1]
        net.put(net.like(x, net.op("Concat", *names, axis=1), x.c))


@block
def slices(net: Builder, how: Block) -> None:
    """Some of the channels, by bounds from either end, with any step; or space, halved or cropped."""
    x = net.x
    low = how.a % x.c
    high = low + 1 + how.b % (x.c - low)
    way = how.c % 6
    if way == 0:
        name, c = net.op("Slice", x.name, net.ints(low), net.ints(high), net.ints(1)), high - low
    elif way == 1:
        name, c = net.op("Slice", x.name, net.ints(low - x.c), net.ints(np.iinfo(np.int64).max), net.ints(1)), x.c - low
    elif way == 2:
        name = net.op("Slice", x.name, net.ints(low), net.ints(x.c), net.ints(-3), net.ints(2))
        c = len(range(low, x.c, 2))
    elif way == 3 and min(x.h, x.w) >= 8:  # the focus stem
        corners = [(0, 0), (1, 0), (0, 1), (1, 1)][: 2 + how.d % 3]
        ends = net.ints(x.h, x.w)
        parts = [net.op("Slice", x.name, net.ints(*p), ends, net.ints(2, 3), net.ints(2, 2)) for p in corners]
        if x.c * len(parts) > WIDEST or x.h % 2 or x.w % 2:
            return
        net.put(Map(net.op("Concat", *parts, axis=1), x.c * len(parts), x.h // 2, x.w // 2))
        return
    elif way == 4:  # both ends, in one order or the other
        first = net.op("Slice", x.name, net.ints(0), net.ints(high), net.ints(1))
        rest = net.op("Slice", x.name, net.ints(low), net.ints(x.c), net.ints(1), net.ints(1))
        name, c = net.op("Concat", *((rest, first) if how.d % 2 else (first, rest)), axis=1), high + x.c - low
        if c > WIDEST:
            return
    else:
        name = net.op("Slice", x.name, net.ints(-1), net.ints(-x.c - 1), net.ints(1), net.ints(-1))
        c = x.c
    net.put(net.like(x, name, c))


@block
def gather(net: Builder, how: Block) -> None:
    """Channels by their numbers: in another order, some of them, some twice; or a single one."""
    x = net.x
    order = net.rng.permutation(x.c)
    if how.a % 4 == 3:
        index = net.array(np.zeros(()), frozen=True)
        net.initializers[index] = np.asarray(int(order[0]), np.int64)
        name = net.op("Unsqueeze", net.op("Gather", x.name, index, axis=1), net.ints(1))
        net.put(net.like(x, net.op("Concat", x.name, name, axis=1), x.c + 1))
        return
    if how.a % 4 == 1:
        order = order[: 1 + how.b % x.c]
    elif how.a % 4 == 2:
        order = np.concatenate([order, order[: 1 + how.b % x.c]])
    if how.c % 3 == 2:
        order = order - x.c
    if len(order) <= WIDEST:
        net.put(net.like(x, net.op("Gather", x.name, net.ints(*order.tolist()), axis=1), len(order)))


@block
def shuffle(net: Builder, how: Block) -> None:
    x = net.x
    group = divisor(x.c, how.a)
    wide = net.reshape(x.name, group, x.c // group, x.h, x.w, style=how.b)
    turned = net.op("Transpose", wide, perm=[0, 2, 1, 3, 4])
    net.put(net.like(x, net.reshape(turned, x.c, x.h, x.w, style=how.c)))


@block
def pool(net: Builder, how: Block) -> None:
    x = net.x
    operator = ["MaxPool", "AveragePool", "MaxPool", "AveragePool", "LpPool"][how.a % 5]
    if min(x.h, x.w) < 4:
        return
    extra: dict[str, object] = {"count_include_pad": how.c % 2} if operator == "AveragePool" else {}
    if how.b % 3 == 2:
        name = net.op(operator, x.name, kernel_shape=[3, 3], pads=[1] * 4, **extra)
        net.put(net.like(x, name))
    else:
        net.put(Map(net.op(operator, x.name, kernel_shape=[2, 2], strides=[2, 2], **extra), x.c, x.h // 2, x.w // 2))


@block
def resize(net: Builder, how: Block) -> None:
    """Twice the size, by scales or by sizes, the latter written down or read off another map."""
    x = net.x
    mode: dict[str, object] = {"mode": ["nearest", "linear"][how.a % 2]}
    if how.b % 4 == 3:
        other = net.maps[how.c % len(net.maps)]
        sizes = net.op("Shape", other.name, start=2)
        whole = net.op("Concat", net.op("Shape", x.name, end=2), sizes, axis=0)
        net.put(Map(net.op("Resize", x.name, "", "", whole, **mode), x.c, other.h, other.w))
        return
    if 2 * max(x.h, x.w) > LARGEST:
        return
    if how.b % 4 == 2:
        name = net.op("Resize", x.name, "", "", net.ints(2 * x.h, 2 * x.w), axes=[2, 3], **mode)
    elif how.b % 4 == 1 and net.net.batch:
        name = net.op("Resize", x.name, "", "", net.ints(net.net.batch, x.c, 2 * x.h, 2 * x.w), **mode)
    else:
        name = net.op("Resize", x.name, "", net.array(np.asarray([1.0, 1, 2, 2]), frozen=True), **mode)
    net.put(Map(name, x.c, 2 * x.h, 2 * x.w))


@block
def pad(net: Builder, how: Block) -> None:
    """Space or channels, with zeros, with a number, or with what is there; a negative amount crops."""
    x, way = net.x, how.a % 6
    if max(x.h, x.w) + 2 > LARGEST or x.c + 3 > WIDEST:
        return
    if way < 2:
        padding = [net.scalar(0.7)] if way else []
        net.put(Map(net.op("Pad", x.name, net.ints(0, 0, 1, 1, 0, 0, 1, 1), *padding), x.c, x.h + 2, x.w + 2))
    elif way == 2:
        mode = ["reflect", "edge"][how.b % 2]
        amounts = net.ints(0, 0, 1, 0, 0, 0, 1, 0)
        net.put(Map(net.op("Pad", x.name, amounts, mode=mode), x.c, x.h + 2, x.w) if x.h > 1 else x)
    elif way == 3:
        low, high = how.b % 3, how.c % 3
        value = net.scalar(0.5 if how.d % 2 else 0.0)
        net.put(net.like(x, net.op("Pad", x.name, net.ints(low, high), value, net.ints(1)), x.c + low + high))
    elif way == 4 and x.h > 4:
        net.put(Map(net.op("Pad", x.name, net.ints(0, 0, -1, 0, 0, 0, -1, 0)), x.c, x.h - 2, x.w))
    elif way == 5 and x.c > 2:
        net.put(net.like(x, net.op("Pad", x.name, net.ints(-1, 0), net.scalar(0.0), net.ints(1)), x.c - 1))


@block
def depth_to_space(net: Builder, how: Block) -> None:
    x = net.x
    if 2 * max(x.h, x.w) > LARGEST:
        return
    if x.c % 4:
        x = net.conv(x, 4 * (1 + how.b % 3))
    name = net.op("DepthToSpace", x.name, blocksize=2, mode=["DCR", "CRD"][how.a % 2])
    net.put(Map(name, x.c // 4, 2 * x.h, 2 * x.w))


@block
def pixel_shuffle(net: Builder, how: Block) -> None:
    """DepthToSpace as reshapes and a transpose."""
    x = net.x
    if 2 * max(x.h, x.w) > LARGEST:
        return
    if x.c % 4:
        x = net.conv(x, 4 * (1 + how.a % 3))
    c = x.c // 4
    wide = net.reshape(x.name, *((c, 2, 2) if how.b % 2 else (2, 2, c)), x.h, x.w, style=how.c)
    turned = net.op("Transpose", wide, perm=[0, 1, 4, 2, 5, 3] if how.b % 2 else [0, 3, 4, 1, 5, 2])
    net.put(Map(net.reshape(turned, c, 2 * x.h, 2 * x.w, style=how.d), c, 2 * x.h, 2 * x.w))


@block
def space_to_depth(net: Builder, how: Block) -> None:
    x = net.x
    if x.h % 2 or x.w % 2 or 4 * x.c > WIDEST:
        return
    if how.a % 2:
        wide = net.reshape(x.name, x.c, x.h // 2, 2, x.w // 2, 2, style=how.b)
        turned = net.op("Transpose", wide, perm=[0, 3, 5, 1, 2, 4] if how.c % 2 else [0, 1, 3, 5, 2, 4])
        name = net.reshape(turned, 4 * x.c, x.h // 2, x.w // 2, style=how.d)
    else:
        name = net.op("SpaceToDepth", x.name, blocksize=2)
    net.put(Map(name, 4 * x.c, x.h // 2, x.w // 2))
