"""Compact equals masked, by volume: random nets, random cuts.

A net that breaks a property is printed as its draw, saved as ONNX with its cut, and both are named in the message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .conftest import COUNT, Tally
from .graphs import Net, build, nets
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


def volume(normal: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So many nets, always the same ones; or as many new ones as the environment asks for."""
    return settings(
        max_examples=COUNT or normal,
        derandomize=not COUNT,
        database=None,
        deadline=None,
        suppress_health_check=SLOW,
        print_blob=bool(COUNT),
    )


def reported(folder: Path, net: Net, cut: Cut, error: Exception) -> Broken:
    """The error with a net to look at."""
    path = folder / "broken.onnx"
    onnx.save(build(net).model, path)
    return Broken(f"{error}\n  net: {net}\n  cut: {cut}\n  saved as {path}")


@volume(100)
@given(nets(), cuts())
def test_compact_equals_masked(tmp_path_factory, tally: Tally, net: Net, cut: Cut) -> None:  # type: ignore[no-untyped-def]
    """Any cut of any net is exact; every layer is accounted for; the plan does the same again. Nothing raises."""
    try:
        case = Case.of(net)
        labels = cut.labels(case.channels)
        compact = check_exact(case, labels)
        tally.decline(check_accounted(case))
        check_replayed(case, labels, compact)
    except Exception as error:
        raise reported(tmp_path_factory.getbasetemp(), net, cut, error) from error
    tally.graphs += 1
    tally.nodes += len(case.graph.model.graph.node)
    tally.prunable += bool(labels)
    tally.units += len(labels)


@volume(40)
@given(nets(blocks=4), st.integers(0, 99))
def test_each_unit_alone(tmp_path_factory, tally: Tally, net: Net, which: int) -> None:  # type: ignore[no-untyped-def]
    """One unit of every family, silenced by hand: what the analysis says of zeros and masks is not asked."""
    try:
        case = Case.of(net)
        for family in case.channels.families:
            if family.width > 1:
                unit = family.units[which % family.width]
                if Cut.spares_every_axis(case.channels, {unit.label}):
                    check_unit(case, unit)
                    tally.alone += 1
    except Exception as error:
        raise reported(tmp_path_factory.getbasetemp(), net, Cut(0, which), error) from error


def drawn(count: int) -> list[Net]:
    """The first nets that hypothesis draws."""
    found: list[Net] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=SLOW,
    )
    @given(nets())
    def draw(net: Net) -> None:
        found.append(net)

    draw()
    return found


OFTEN = (
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Einsum",
    "Flatten", "Gather", "Gelu", "Gemm", "GlobalAveragePool", "GroupNormalization", "HardSigmoid", "HardSwish",
    "InstanceNormalization", "LayerNormalization", "LeakyRelu", "MatMul", "MaxPool", "Mul", "PRelu", "Pad",
    "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax",
    "Softplus", "SpaceToDepth", "Split", "Sub", "Tanh", "Transpose", "Unsqueeze",
)  # fmt: skip


def test_the_generator_hits_every_operator_and_kind_of_convolution() -> None:
    """Counted over a hundred nets, in the graphs that are really built."""
    graphs = [build(net).model.graph for net in drawn(100)]
    operators = Counter(node.op_type for graph in graphs for node in graph.node)
    rare = {name: operators[name] for name in OFTEN if operators[name] < 4}
    assert not rare, rare
    kinds: Counter[str] = Counter()
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
