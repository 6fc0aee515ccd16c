"""Compact equals masked, by volume: random nets, random cuts.

A net that breaks a property is printed as its draw, saved as ONNX with its cut, and both are named in the message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from .builder import Block, Net
from .conftest import COUNT, Tally
from .graphs import build, nets, smallest
from .properties import (
    Broken,
    Case,
    Cut,
    check_accounted,
    check_exact,
    check_replayed,
    check_unit,
    cuts,
)

SLOW = [HealthCheck.too_slow]
"""A net with fourteen blocks takes longer to draw and to run than hypothesis expects of an example."""


def volume(normal: int) -> settings:
    """So many nets, always the same ones; or as many new ones as the environment asks for."""
    return settings(
        max_examples=COUNT or normal,
        derandomize=not COUNT,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # `smallest` shrinks
        suppress_health_check=SLOW,
    )


def together(net: Net, cut: Cut, tally: Tally) -> None:
    """All properties under one cut."""
    case = Case.of(net)
    labels = cut.labels(case.channels)
    compact = check_exact(case, labels)
    reasons = check_accounted(case)
    check_replayed(case, labels, compact)
    tally.count(nodes=len(case.graph.model.graph.node), units=len(labels), reasons=reasons)


def alone(net: Net, cut: Cut, tally: Tally) -> None:
    """One unit of every family by itself."""
    case = Case.of(net)
    for family in case.channels.families:
        unit = family.units[cut.seed % family.width]
        if family.width > 1 and Cut.spares_every_axis(case.channels, {unit.label}):
            check_unit(case, unit)
            tally.alone += 1


def require(check: Callable[[Net, Cut, Tally], None], net: Net, cut: Cut, tally: Tally, folder: Path) -> None:
    """Raise with a net to look at: as small as it gets, as its draw and as a file."""

    def failure(net: Net) -> Exception | None:
        try:
            check(net, cut, Tally())
        except Exception as error:  # whatever is raised, a net has broken something
            return error
        return None

    try:
        check(net, cut, tally)
    except Exception as error:
        kind = type(error)
        small = smallest(net, lambda net: type(failure(net)) is kind)
        path = folder / "broken.onnx"
        onnx.save(build(small).model, path)
        text = f"{failure(small)}\n  net: {small}\n  cut: {cut}\n  saved as {path}\n  drawn as {net}"
        raise Broken(text) from error


@volume(100)
@given(nets(), cuts())
def test_compact_equals_masked(tmp_path_factory: pytest.TempPathFactory, tally: Tally, net: Net, cut: Cut) -> None:
    """Any cut of any net is exact; every layer is accounted for; the plan does the same again. Nothing raises."""
    require(together, net, cut, tally, tmp_path_factory.getbasetemp())


@volume(60)
@given(nets(blocks=5), cuts())
def test_each_unit_alone(tmp_path_factory: pytest.TempPathFactory, tally: Tally, net: Net, cut: Cut) -> None:
    """Units silenced by hand: what the analysis says of zeros and masks is not asked."""
    require(alone, net, cut, tally, tmp_path_factory.getbasetemp())


def test_a_broken_net_is_reported_small(tmp_path: Path) -> None:
    """The message names what breaks, and nothing beside it; the file can be loaded."""

    def dislikes_splits(net: Net, cut: Cut, tally: Tally) -> None:
        if any(node.op_type == "Split" for node in build(net).model.graph.node):
            raise Broken("a split")

    net = next(net for net in drawn(100) if any(node.op_type == "Split" for node in build(net).model.graph.node))
    with pytest.raises(Broken) as caught:
        require(dislikes_splits, net, Cut(), Tally(), tmp_path)
    small = eval(str(caught.value).split("net: ")[1].splitlines()[0], {"Net": Net, "Block": Block})
    assert len(small.blocks) == 1 and small.heads == (0,)
    onnx.checker.check_model(onnx.load(tmp_path / "broken.onnx"))


def drawn(count: int) -> list[Net]:
    """The first nets that hypothesis draws."""
    found: list[Net] = []

    @settings(volume(count), max_examples=count, derandomize=True)
    @given(nets())
    def draw(net: Net) -> None:
        found.append(net)

    draw()
    return found


OFTEN = (
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Einsum",
    "Flatten", "Gather", "Gelu", "Gemm", "GlobalAveragePool", "GroupNormalization", "HardSigmoid", "HardSwish",
    "InstanceNormalization", "LayerNormalization", "MatMul", "MaxPool", "Mul", "PRelu", "Pad",
    "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax",
    "SpaceToDepth", "Split", "Sub", "Tanh", "Transpose", "Unsqueeze",
)  # fmt: skip


def test_the_generator_hits_every_operator_and_kind_of_convolution() -> None:
    """Counted over a hundred nets, in the graphs that are really built."""
    graphs = [build(net).model.graph for net in drawn(100)]
    operators = Counter(node.op_type for graph in graphs for node in graph.node)
    rare = {name: operators[name] for name in OFTEN if operators[name] < 4}
    assert not rare, rare
    kinds: Counter[str] = Counter()
    kinds["activation that keeps zero"] = sum(operators[o] for o in ("Abs", "Celu", "Elu", "LeakyRelu", "Mish", "Selu"))
    kinds["activation that loses zero"] = sum(operators[o] for o in ("Cos", "HardSigmoid", "Softplus"))
    kinds["attention"] = sum(_is_attention(graph) for graph in graphs)
    for graph in graphs:
        shapes = {i.name: tuple(i.dims) for i in graph.initializer}
        read = Counter(name for node in graph.node for name in node.input if name.startswith("w"))
        kinds["shared weight"] += any(count > 1 for count in read.values())
        kinds["several outputs"] += len(graph.output) > 1
        for node in graph.node:
            if node.op_type == "Conv":
                given_ = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                out, into, *kernel = shapes[node.input[1]]
                group = given_.get("group", 1)
                kinds["depthwise"] += group > 1 and into == 1
                kinds["depthwise with multiplier"] += group > 1 and into == 1 and out > group
                kinds["grouped"] += group > 1 and into > 1
                kinds["strided"] += given_.get("strides", [1])[0] > 1
                kinds["dilated"] += given_.get("dilations", [1])[0] > 1
                kinds["1x1"] += set(kernel) == {1}
                kinds["without bias"] += len(node.input) == 2
                kinds["without padding"] += set(kernel) != {1} and not any(given_.get("pads", [0]))
    rare = {name: count for name, count in kinds.items() if count < 4}
    assert not rare, rare


def _is_attention(graph: onnx.GraphProto) -> bool:
    """Whether what comes out of a Softmax goes into a MatMul."""
    weighed = {node.output[0] for node in graph.node if node.op_type in ("Softmax", "Transpose")}
    softmax = any(node.op_type == "Softmax" for node in graph.node)
    return softmax and any(node.op_type == "MatMul" and weighed & set(node.input) for node in graph.node)


def test_the_outputs_say_something() -> None:
    """Neither constant nor saturated nor exploding: an error inside must be seen outside."""
    quiet = 0
    for net in drawn(60):
        for output in Case.of(net).dense():
            assert np.isfinite(output).all()
            assert np.abs(output).max() < 1e6, net
            quiet += float(output.std()) < 1e-3 * float(np.abs(output).max()) or not output.any()
    assert quiet <= 10


def test_most_nets_are_cut() -> None:
    """An analysis that declines everything would pass every other test."""
    cut = [len(Cut(0.5).labels(Case.of(net).channels)) for net in drawn(60)]
    assert sum(bool(n) for n in cut) > 45 and sum(cut) > 300
