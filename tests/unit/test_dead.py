"""Dead channels: what is constant, what leaves, that nothing changes, and that a wrong fold is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from edgeslim.errors import CertificateError
from edgeslim.exporter.certificate import certify, random_probe, require
from edgeslim.exporter.channels import analyze
from edgeslim.exporter.dead import fold, judge, sites
from edgeslim.exporter.dead import fold as fold_module
from edgeslim.exporter.dead.arrivals import measure
from edgeslim.exporter.graph_runner import runner_from_graph
from edgeslim.exporter.slim import Slimmed, remove_dead

Arrays = Mapping[str, NDArray[np.float32]]
SHAPES = [(1, 3, 16, 20), (2, 3, 24, 16)]


@dataclass(frozen=True)
class Case:
    """A net, the shapes of its weights, what is zero in them, and the widths that are left."""

    body: str
    shapes: Mapping[str, tuple[int, ...]]
    zero: Mapping[str, tuple[int, list[int]]]
    left: Mapping[str, int]
    because: Mapping[str, str] = field(default_factory=dict)
    set: Mapping[str, tuple[list[int], float]] = field(default_factory=dict)
    sizes: tuple[tuple[int, ...], ...] = tuple(SHAPES)
    output: str = "float[n, 5, h2, w2] y"


STEM = "a = Conv <pads = [1, 1, 1, 1]> (x, stem, stem_b)\n"
STEM_SHAPES = {"stem": (8, 3, 3, 3), "stem_b": (8,)}
DEAD = {"stem": (0, [1, 4, 6])}


def bn(name: str, x: str, y: str) -> str:
    return f"{y} = BatchNormalization ({x}, {name}_g, {name}_h, {name}_m, {name}_v)\n"


def bn_shapes(name: str, n: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}_{p}": (n,) for p in "ghmv"}


CASES = {
    "pointwise convolution without a bias": Case(
        STEM + "s = Sigmoid (a)\ny = Conv (s, head)", {**STEM_SHAPES, "head": (5, 8, 1, 1)}, DEAD, {"stem": 5}
    ),
    "convolution without padding, with a bias": Case(
        STEM + "s = Elu (a)\ny = Conv (s, head, head_b)",
        {**STEM_SHAPES, "head": (5, 8, 3, 3), "head_b": (5,)}, DEAD, {"stem": 5},
    ),
    "batch norm with a shift, two readers": Case(
        STEM + bn("n", "a", "b") + "s = Tanh (b)\nc = Conv (s, left)\nd = Conv (s, right)\ny = Add (c, d)",
        {**STEM_SHAPES, **bn_shapes("n", 8), "left": (5, 8, 1, 1), "right": (5, 8, 1, 1)}, DEAD, {"stem": 5},
    ),
    "gamma is zero, the kernel is not": Case(
        STEM + bn("n", "a", "b") + "s = Tanh (b)\ny = Conv (s, head)",
        {**STEM_SHAPES, **bn_shapes("n", 8), "head": (5, 8, 1, 1)}, {"n_g": (0, [0, 7])}, {"stem": 6},
    ),
    "zero padding: one channel carries the others": Case(
        STEM + "s = Sigmoid (a)\ny = Conv <pads = [1, 1, 1, 1]> (s, head)",
        {**STEM_SHAPES, "head": (5, 8, 3, 3)}, DEAD, {"stem": 6}, {"stem": "carries the constants"},
    ),
    "SAME padding": Case(
        STEM + 's = Sigmoid (a)\ny = Conv <auto_pad = "SAME_UPPER"> (s, head)',
        {**STEM_SHAPES, "head": (5, 8, 3, 3)}, DEAD, {"stem": 6}, {"stem": "carries"},
    ),
    "zero padding, yet the constants are zero": Case(
        STEM + "s = Relu (a)\ny = Conv <pads = [1, 1, 1, 1]> (s, head)",
        {**STEM_SHAPES, "head": (5, 8, 3, 3)}, DEAD, {"stem": 5}, set={"stem_b": ([1, 4, 6], -0.5)},
    ),
    "two padded readers and a pointwise one": Case(
        STEM + "s = Sigmoid (a)\nc = Conv <pads = [1, 1, 1, 1]> (s, left)\nd = Conv <pads = [2, 2, 2, 2]> (s, right)\n"
        "e = Conv (s, third)\nf = Add (c, d)\ny = Add (e, f)",
        {**STEM_SHAPES, "left": (5, 8, 3, 3), "right": (5, 8, 5, 5), "third": (5, 8, 1, 1)},
        DEAD, {"stem": 6}, {"stem": "carries"},
    ),
    "transposed convolution": Case(
        STEM + "s = Sigmoid (a)\ny = ConvTranspose <strides = [2, 2]> (s, up, up_b)",
        {**STEM_SHAPES, "up": (8, 5, 3, 3), "up_b": (5,)}, DEAD, {"stem": 6}, {"stem": "carries"},
    ),
    "grouped convolution without padding": Case(
        STEM + "s = Sigmoid (a)\nc = Conv <group = 2> (s, grouped)\ny = Conv (c, head)",
        {**STEM_SHAPES, "grouped": (6, 4, 3, 3), "head": (5, 6, 1, 1)}, {"stem": (0, [1, 5, 2])}, {"stem": 6},
    ),
    "grouped convolution with padding": Case(
        STEM + "s = Sigmoid (a)\nc = Conv <group = 2, pads = [1, 1, 1, 1]> (s, grouped)\ny = Conv (c, head)",
        {**STEM_SHAPES, "grouped": (6, 4, 3, 3), "head": (5, 6, 1, 1)}, {"stem": (0, [1, 5])}, {"stem": 8},
        {"stem": "a constant that Conv c cannot take up"},
    ),
    "depthwise convolution with padding makes a border": Case(
        STEM + "s = Sigmoid (a)\nc = Conv <group = 8, pads = [1, 1, 1, 1]> (s, deep)\ny = Conv (c, head)",
        {**STEM_SHAPES, "deep": (8, 1, 3, 3), "head": (5, 8, 1, 1)}, DEAD, {"stem": 8},
        {"stem": "a constant with another border, read by Conv y"},
    ),
    "depthwise kernel is zero": Case(
        STEM + "s = Sigmoid (a)\nc = Conv <group = 8, pads = [1, 1, 1, 1]> (s, deep, deep_b)\ny = Conv (c, head)",
        {**STEM_SHAPES, "deep": (8, 1, 3, 3), "deep_b": (8,), "head": (5, 8, 1, 1)},
        {"deep": (0, [2, 3])}, {"stem": 6, "deep": 6},
    ),
    "addition of two branches, dead in both or in one": Case(
        STEM + "b = Conv (x, other)\nc = Conv (a, same)\nd = Add (c, b)\ns = Sigmoid (d)\ny = Conv (s, head)",
        {**STEM_SHAPES, "same": (6, 8, 1, 1), "other": (6, 3, 1, 1), "head": (5, 6, 1, 1)},
        {"same": (0, [0, 1, 2]), "other": (0, [1, 2, 3])}, {"same": 4, "other": 4},
    ),
    "a gate that is constant where its channel is": Case(
        STEM + "p = GlobalAveragePool (a)\ng = Conv (p, gate, gate_b)\nq = Sigmoid (g)\nm = Mul (a, q)\n"
        "y = Conv (m, head)",
        {**STEM_SHAPES, "gate": (8, 8, 1, 1), "gate_b": (8,), "head": (5, 8, 1, 1)},
        {"stem": (0, [1, 4]), "gate": (0, [1])}, {"stem": 7},
    ),
    "a map over space that is zero on every random image": Case(
        STEM + "t = Conv (x, space, space_b)\nr = Relu (t)\nm = Mul (a, r)\ny = Conv (m, head)",
        {**STEM_SHAPES, "space": (1, 3, 1, 1), "space_b": (1,), "head": (5, 8, 1, 1)}, DEAD, {"stem": 8},
        set={"space_b": ([0], -100.0)},
    ),
    "nobody listens": Case(
        STEM + "s = Relu (a)\nc = Conv <pads = [1, 1, 1, 1]> (s, left)\ny = Conv (c, head)",
        {**STEM_SHAPES, "left": (6, 8, 3, 3), "head": (5, 6, 1, 1)}, {"left": (1, [3, 5])}, {"stem": 6},
    ),
    "concatenation and split": Case(
        STEM + "b = Conv (x, other, other_b)\nc = Concat <axis = 1> (a, b)\ns = HardSigmoid (c)\n"
        "u, v = Split <axis = 1, num_outputs = 2> (s)\nd = Conv (u, left)\ne = Conv (v, right)\ny = Add (d, e)",
        {**STEM_SHAPES, "other": (4, 3, 1, 1), "other_b": (4,), "left": (5, 6, 1, 1), "right": (5, 6, 1, 1)},
        {"stem": (0, [1, 7]), "other": (0, [0])}, {"stem": 6, "other": 4},  # equal parts tie 1 to 7
    ),
    "one shared kernel read at two places": Case(
        STEM + "s = Sigmoid (a)\nc = Conv (s, shared)\nt = Softplus (a)\nd = Conv (t, shared)\ny = Add (c, d)",
        {**STEM_SHAPES, "shared": (5, 8, 1, 1)}, DEAD, {"stem": 5},
    ),
    "what dies when the dead have left": Case(
        STEM + "s = Sigmoid (a)\nc = Conv (s, left)\nt = Sigmoid (c)\ny = Conv (t, head)",
        {**STEM_SHAPES, "left": (6, 8, 1, 1), "head": (5, 6, 1, 1)},
        {"stem": (0, [1, 4, 6]), "left": (0, [])}, {"stem": 5, "left": 5}, set={"left": ([-1], 0.0)},
    ),
    "all channels are dead": Case(
        STEM + "s = Sigmoid (a)\ny = Conv (s, head, head_b)",
        {**STEM_SHAPES, "head": (5, 8, 1, 1), "head_b": (5,)}, {"stem": (0, list(range(8)))}, {"stem": 1},
        {"stem": "the last channel"},
    ),
    "sum over space grows with the image": Case(
        STEM + "s = Sigmoid (a)\nr = ReduceSum <keepdims = 1> (s, space_axes)\ny = Conv (r, head)",
        {**STEM_SHAPES, "head": (5, 8, 1, 1)}, DEAD, {"stem": 8},
    ),
    "linear layers": Case(
        STEM + "s = Sigmoid (a)\np = GlobalAveragePool (s)\nf = Flatten (p)\n"
        "g = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (f, one, one_b)\nt = Sigmoid (g)\nh = Gemm (t, two)\n"
        "u = Sigmoid (h)\nm = MatMul (u, three)\nv = Sigmoid (m)\nk = MatMul (v, four)\ny = Add (k, four_b)",
        {**STEM_SHAPES, "one": (7, 8), "one_b": (7,), "two": (7, 6), "three": (6, 9), "four": (9, 5), "four_b": (5,)},
        {**DEAD, "one": (0, [2, 3]), "two": (1, [0]), "three": (1, [8, 1, 5])},
        {"stem": 5, "one": 5, "two": 5, "three": 6}, output="float[n, 5] y",
    ),
    "flattened with its space": Case(
        STEM + "s = Sigmoid (a)\nc = Conv <group = 8, pads = [1, 1, 1, 1]> (s, deep)\nf = Flatten (c)\n"
        "y = Gemm (f, head, head_b)",
        {**STEM_SHAPES, "deep": (8, 1, 3, 3), "head": (8 * 36, 5), "head_b": (1, 5)}, DEAD, {"stem": 5},
        sizes=((1, 3, 6, 6), (2, 3, 6, 6)), output="float[n, 5] y",
    ),
    "a sum over channels takes up no constant": Case(
        STEM + "s = Sigmoid (a)\nr = ReduceSum <keepdims = 1> (s, channel_axes)\ny = Conv (r, head)",
        {**STEM_SHAPES, "head": (5, 1, 1, 1)}, DEAD, {"stem": 8}, {"stem": "that ReduceSum r cannot take up"},
    ),
    "a sum over channels loses zeros": Case(
        STEM + "s = Relu (a)\nr = ReduceSum <keepdims = 1> (s, channel_axes)\ny = Conv (r, head)",
        {**STEM_SHAPES, "head": (5, 1, 1, 1)}, DEAD, {"stem": 5}, set={"stem_b": ([1, 4, 6], -1.0)},
    ),
    "einsum takes up no constant": Case(
        STEM + 's = Sigmoid (a)\ny = Einsum <equation = "nchw,co->nohw"> (s, head)',
        {**STEM_SHAPES, "head": (8, 5)}, DEAD, {"stem": 8}, {"stem": "cannot take up"},
    ),
    "a normalisation over channels": Case(
        STEM + "s = Sigmoid (a)\nn = LpNormalization <axis = 1> (s)\ny = Conv (n, head)",
        {**STEM_SHAPES, "head": (5, 8, 1, 1)}, DEAD, {"stem": 8},
    ),
}  # fmt: skip


def build(case: Case, seed: int = 0) -> ir.Model:
    """The net of a case with random weights, its zeros in place."""
    rng = np.random.default_rng(seed)
    image = "float[n, 3, 6, 6] x" if case.sizes[0][2:] == (6, 6) else "float[n, 3, h, w] x"
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 18]>\nnet ({image}) => ({case.output})\n'
        f"<int64[2] space_axes = {{2, 3}}, int64[1] channel_axes = {{1}}>\n{{\n{case.body}\n}}"
    )
    arrays = {}
    for name, shape in case.shapes.items():
        array = rng.uniform(0.5, 1.5, shape) if name.endswith(("_v", "_g")) else rng.standard_normal(shape)
        arrays[name] = array.astype(np.float32)
    for name, (axis, indices) in case.zero.items():
        np.moveaxis(arrays[name], axis, 0)[indices] = 0
    if case.set.get("left") == ([-1], 0.0):  # output 0 of `left` listens to the dead alone
        arrays["left"][0] = 0
        arrays["left"][0, DEAD["stem"][1]] = 1
    else:
        for name, (indices, value) in case.set.items():
            arrays[name][indices] = value
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def slim(model: ir.Model, sizes: tuple[tuple[int, ...], ...] = tuple(SHAPES)) -> Slimmed:
    return remove_dead(model, [{"x": b} for b in random_probe(sizes).batches])


def assert_equal(model: ir.Model, compact: ir.Model, sizes: tuple[tuple[int, ...], ...] = tuple(SHAPES)) -> None:
    """Compare on images that nobody has seen yet; raises CertificateError."""
    probe = random_probe(sizes, seed=7)
    require(certify(("given", runner_from_graph(model)), {"compact": runner_from_graph(compact)}, [probe]))


@pytest.mark.parametrize("name", CASES)
def test_dead_channels_leave_and_nothing_changes(name: str) -> None:
    case = CASES[name]
    model = build(case)
    slimmed = slim(model, case.sizes)
    assert_equal(model, slimmed.model, case.sizes)
    widths = {layer.layer: (layer.width_after, layer.reason or "") for layer in slimmed.coverage}
    assert {n: widths[n][0] for n in case.left} == dict(case.left)
    for layer, words in case.because.items():
        assert words in widths[layer][1]
    onnx.checker.check_model(ir.to_proto(slimmed.model))
    assert [v.name for v in slimmed.model.graph.outputs] == ["y"]
    assert slim(slimmed.model, case.sizes).removed == 0


def test_the_given_graph_is_not_touched() -> None:
    model = build(CASES["linear layers"])
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    slim(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_live_net_stays_as_it_is() -> None:
    case = replace(CASES["pointwise convolution without a bias"], zero={})
    assert slim(build(case)).removed == 0


def test_pinning_remains_the_default() -> None:
    model = build(replace(CASES["pointwise convolution without a bias"], zero={}))
    assert not analyze(model, parameters=["head"]).families
    shifted = build(Case(STEM + "s = Sigmoid (a)\ny = Conv (s, head)", {**STEM_SHAPES, "head": (5, 8, 1, 1)}, {}, {}))
    assert not analyze(shifted).families
    assert [f.width for f in analyze(shifted, constants="record").families] == [8]


# --- planted faults ------------------------------------------------------------------------------------------------


def test_a_bias_off_by_one_channel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = fold_module.__globals__["_add_to_conv"]
    monkeypatch.setitem(
        fold_module.__globals__, "_add_to_conv", lambda model, node, added: right(model, node, np.roll(added, 1))
    )
    model = build(CASES["pointwise convolution without a bias"])
    with pytest.raises(CertificateError, match="differs"):
        assert_equal(model, slim(model).model)


def test_an_ignored_border_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = sites._conv

    def borderless(node: ir.Node, operand: int) -> sites.Site | None:
        site = right(node, operand)
        return None if site is None else replace(site, way=sites.Way.BIAS)

    monkeypatch.setattr(sites, "_conv", borderless)
    monkeypatch.setattr(sites, "_READERS", {**sites._READERS, "Conv": borderless})
    model = build(CASES["zero padding: one channel carries the others"])
    slimmed = slim(model)
    assert slimmed.removed == 3
    with pytest.raises(CertificateError, match="differs"):
        assert_equal(model, slimmed.model)


def test_a_channel_cut_without_being_folded_is_noticed() -> None:
    model = build(CASES["convolution without padding, with a bias"])
    channels = analyze(model, constants="record")
    inputs = [{"x": b} for b in random_probe(SHAPES).batches]
    verdict = judge(channels, lambda places: measure(model, places, inputs))
    assert len(verdict.leaving) == 3
    assert_equal(model, fold(model, verdict))
    forgotten = tuple(replace(a, constants=np.zeros_like(a.constants)) for a in verdict.arrivals)
    with pytest.raises(CertificateError, match="differs"):
        assert_equal(model, fold(model, replace(verdict, arrivals=forgotten)))
