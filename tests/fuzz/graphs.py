"""Random convolutional nets, written as ONNX, for properties that must hold of every net.

A net is a list of blocks, each a name and four small numbers, and is built from them without further chance but the
values of its weights. So a net that breaks a property can be made smaller block by block, and what is left is its
reproduction:

    build(Net(blocks=(Block("conv", 3), Block("split", 1, 2)), heads=(0,)))

A block that does not fit what came before it (half a pixel, a third of a channel) takes the nearest that does, or does
nothing. Weights have the scale that keeps activations near one: what is lost on the way must be seen at the outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from . import layers, mixing, movements  # noqa: F401 (they register their blocks)
from .builder import BLOCKS, Block, Builder, Graph, Map, Net


def nets(blocks: int = 14) -> st.SearchStrategy[Net]:
    """Nets of up to so many blocks.

    Hypothesis draws a seed, and `smallest` makes nets smaller: left to draw every number itself, hypothesis likes to
    repeat what it drew, and a hundred nets have a third of the operators.
    """
    return st.integers(0, 2**24 - 1).map(lambda seed: _drawn(seed, blocks))


def smallest(net: Net, fails: Callable[[Net], bool]) -> Net:
    """The net with all that can go while `fails` holds: blocks, outputs, numbers."""

    def tried(**changes: object) -> bool:
        nonlocal net
        simpler = replace(net, **changes)  # type: ignore[arg-type]
        better = simpler != net and fails(simpler)
        net = simpler if better else net
        return better

    place = 0
    while place < len(net.blocks):
        place += not tried(blocks=net.blocks[:place] + net.blocks[place + 1 :])
    any(tried(heads=heads) for heads in [(0,), *((head,) for head in net.heads)])
    for name, simple in (("dynamic", False), ("batch", 2), ("size", 8), ("colours", 1), ("seed", 0)):
        tried(**{name: simple})
    for place in range(len(net.blocks)):
        for name in ("a", "b", "c", "d"):
            block = net.blocks[place]
            changed = (replace(block, **{name: n}) for n in range(getattr(block, name)))  # type: ignore[arg-type]
            any(tried(blocks=(*net.blocks[:place], simple, *net.blocks[place + 1 :])) for simple in changed)
    return net


def _drawn(seed: int, blocks: int) -> Net:
    rng = np.random.default_rng(seed)
    kinds = [*sorted(BLOCKS), "conv", "conv"]  # there are many kinds of it
    count = int(rng.integers(1, blocks + 1))
    return Net(
        blocks=tuple(Block(kinds[rng.integers(len(kinds))], *rng.integers(0, 12, 4).tolist()) for _ in range(count)),
        heads=(int(rng.integers(0, 8)), *rng.integers(0, 24, rng.integers(0, 3)).tolist()),
        colours=int(rng.integers(1, 5)),
        size=int(rng.choice([8, 12, 16])),
        batch=int(rng.integers(0, 3)),
        dynamic=bool(rng.integers(2)),
        seed=seed % 1000,
    )


def build(net: Net) -> Graph:
    """The graph of a draw: checked, with all shapes inferred."""
    builder = Builder(net)
    for block in net.blocks:
        BLOCKS[block.kind](builder, block)
    outputs = [_head(builder, number) for number in net.heads]
    return builder.finish(list(dict.fromkeys(outputs)))


def _head(net: Builder, number: int) -> tuple[str, int]:
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
