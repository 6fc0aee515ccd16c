"""Float16: typed throughout, islands for a reason, rounding that can be seen."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.errors import ConfigError, InvariantError, UnsupportedGraphError
from edgeslim.exporter.precision import Fp16Options, Island, Limits, measure_deviation, open_calibration, to_float16
from edgeslim.exporter.precision.fp16 import HALF, SINGLE, convert
from edgeslim.exporter.precision.ranges import measure_sums
from edgeslim.exporter.precision.rounding import round_values
from edgeslim.exporter.precision.simulate import simulate
from edgeslim.exporter.precision.typed import check_typed, mixed_operands, with_types

from .precise import calibrated, frames, graph, maker, operators, residual

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
ROWS = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)


def reasons(islands: tuple[Island, ...]) -> dict[str, str]:
    return {island.value: island.reason for island in islands}


def islands_of(body: str, rows: np.ndarray = ROWS, **arrays: np.ndarray) -> dict[str, str]:
    model = graph(f"{HEAD} g (float[n, 4] x) => (float[n, k] y) {{ {body} }}", arrays)
    return reasons(to_float16(model, open_calibration(model, [rows])).islands)


def test_everything_but_the_frame_is_float16_and_outputs_keep_their_type() -> None:
    model = residual()
    halved = to_float16(model, calibrated(model))
    assert set(reasons(halved.islands)) == {"p", "m", "s"}  # what normalises the frame
    kinds = {v.name: v.dtype for n in halved.model.graph for v in n.outputs}
    assert {kinds[n] for n in ("x", "c1", "r1", "c2", "t", "r2")} == {HALF}
    assert [(v.name, v.dtype) for v in halved.model.graph.outputs] == [("y", SINGLE)]
    assert halved.model.graph.inputs[0].dtype == ir.DataType.UINT8
    assert operators(halved.model).count("Cast") == 3  # of the frame, after its normalisation, of the output
    assert halved.model.graph.initializers["w1/float16"].dtype == HALF and "w1" not in halved.model.graph.initializers
    (off,) = measure_deviation(model, halved.model, calibrated(model))
    assert 1e-5 < off.relative_rms < 2e-3


def test_outputs_become_float16_where_that_is_asked_for() -> None:
    model = residual()
    halved = to_float16(model, calibrated(model), Fp16Options(outputs=frozenset({"y"})))
    assert [(v.name, v.dtype) for v in halved.model.graph.outputs] == [("y", HALF)]
    (off,) = measure_deviation(model, halved.model, calibrated(model))
    assert off.relative_rms < 2e-3


def test_names_that_the_graph_has_not_got_are_refused() -> None:
    model = residual()
    for options in (Fp16Options(keep=frozenset({"gone"})), Fp16Options(outputs=frozenset({"t"}))):
        with pytest.raises(ConfigError, match="the graph has no"):
            to_float16(model, calibrated(model), options)


def test_a_value_beyond_float16_makes_islands_of_who_makes_and_who_reads_it() -> None:
    found = islands_of(
        "a = Mul (x, big) b = Relu (a) y = Mul (b, small)", big=np.float32([3e4]), small=np.float32([1e-3])
    )
    assert {"a", "b", "y"} == set(found)
    assert "reaches" in found["a"] and "65504" in found["a"]


def test_the_margin_is_obeyed() -> None:
    model = graph(
        f"{HEAD} g (float[n, 4] x) => (float[n, 4] y) {{ a = Mul (x, k) y = Relu (a) }}", {"k": np.float32([100])}
    )
    rows = np.full((2, 4), 300.0, np.float32)
    rows[0, 0] = 1
    opened = open_calibration(model, [rows])
    assert set(reasons(to_float16(model, opened).islands)) == {"a", "y"}  # 30,000 is more than a quarter of 65,504
    assert not to_float16(model, opened, Fp16Options(limits=Limits(margin=2.0))).islands


def test_a_sum_that_overflows_on_the_way_to_a_small_result_makes_an_island() -> None:
    """Thousands of large products that cancel: every value is small, a partial sum is not."""
    weight = np.tile(np.float32([4000, -4000]), 2)[:, None]
    rows = np.tile(np.float32([5, 5, 5, 5]), (3, 1)) + np.float32([[0], [1e-3], [2e-3]])
    rows[0, 0] += 0.01
    found = islands_of("y = MatMul (x, w)", rows, w=weight)
    assert "on the way" in found["y"]
    model = graph(f"{HEAD} g (float[n, 4] x) => (float[n, 1] y) {{ y = MatMul (x, w) }}", {"w": weight})
    (largest,) = measure_sums(model, open_calibration(model, [rows])).values()
    assert largest == pytest.approx(np.abs(rows @ np.abs(weight)).max(), rel=1e-5)


def test_the_sum_behind_a_mean_counts() -> None:
    text = f"{HEAD} g (float[n, 1, h, w] x) => (float[n, 1, 1, 1] y) {{ y = GlobalAveragePool (x) }}"
    model = graph(text, {})
    images = np.abs(np.random.default_rng(0).standard_normal((2, 1, 64, 64))).astype(np.float32) * 20
    (sums,) = measure_sums(model, open_calibration(model, [images])).values()
    assert sums == pytest.approx(images.sum(axis=(1, 2, 3)).max(), rel=1e-4)
    assert "on the way" in reasons(to_float16(model, open_calibration(model, [images])).islands)["y"]


def test_numbers_too_small_and_constants_too_small_make_islands() -> None:
    found = islands_of("a = Mul (x, tiny) b = Relu (a) y = Mul (b, k)", tiny=np.float32([1e-3]), k=np.float32([9.0]))
    assert not found
    found = islands_of("a = Mul (x, tiny) b = Mul (a, tiny) c = Mul (b, big) y = Mul (c, big)",
                       tiny=np.float32([1e-4]), big=np.float32([1e4]))  # fmt: skip
    assert {"b", "c"} <= set(found) and "too small" in found["b"]
    found = islands_of("a = Abs (x) b = Add (a, eps) c = Sqrt (b) y = Div (x, c)", eps=np.float32([1e-5]))
    assert found == {"b": "its constant eps is 1e-05, below the smallest normal float16"}


def test_what_is_divided_by_stays_where_it_comes_near_zero() -> None:
    """A norm that a clip keeps from 0: in float16 the clip's bound is 0, and so is what passes through the Expand."""
    model = graph(
        f"""{HEAD} g (float[n, 4] x) => (float[n, 4] y) <int64[1] last = {{1}}>
        {{
          norm = ReduceL2 <keepdims = 1> (x, last)
          safe = Clip (norm, floor)
          size = Shape (x)
          wide = Expand (safe, size)
          y = Div (x, wide)
        }}""",
        {"floor": np.float32(1e-12)},
    )
    rows = np.concatenate([ROWS, np.zeros((1, 4), np.float32)])
    opened = open_calibration(model, [rows])
    halved = to_float16(model, opened)
    assert {"safe", "wide", "y"} <= set(reasons(halved.islands)) and "near 0" in reasons(halved.islands)["wide"]
    assert measure_deviation(model, halved.model, opened)[0].relative_rms < 2e-3
    spoilt = convert(with_types(model), {"norm", "safe"})  # planted: without the rule
    assert np.isinf(measure_deviation(model, spoilt, opened)[0].relative_rms)


@pytest.mark.parametrize(
    "body, operator",
    [
        ("y = LayerNormalization <axis = -1> (x, g)", "LayerNormalization"),
        ("a = Abs (x) b = Pow (a, g) y = Relu (b)", "Pow"),
        ("y = LogSoftmax (x)", "LogSoftmax"),
    ],
)
def test_some_operators_stay_whatever_their_ranges(body: str, operator: str) -> None:
    model = graph(f"{HEAD} g (float[n, 4] x) => (float[n, 4] y) {{ {body} }}", {"g": np.ones(4, np.float32)})
    assert operator in [i.operator for i in to_float16(model, open_calibration(model, [ROWS])).islands]


def test_a_weight_that_both_kinds_read_is_stored_in_both() -> None:
    text = f"{HEAD} g (float[n, 4] x) => (float[n, 4] y, float[n, 4] z) {{ y = MatMul (x, w) z = MatMul (x, w) }}"
    exact = np.float32(np.random.default_rng(1).standard_normal((4, 4)))
    model = graph(text, {"w": exact})
    halved = to_float16(model, open_calibration(model, [ROWS]), Fp16Options(keep=frozenset({"z"}))).model
    weights = halved.graph.initializers
    assert weights["w"].dtype == SINGLE and weights["w/float16"].dtype == HALF
    np.testing.assert_array_equal(weights["w"].const_value.numpy(), exact)  # not rounded for the other's sake
    _, z = simulate(halved)({"x": ROWS})
    np.testing.assert_allclose(z, ROWS @ exact, rtol=1e-6, atol=1e-6)


def test_resize_keeps_its_scales_in_float32() -> None:
    text = f"""{HEAD} g (float[n, 1, h, w] x) => (float[n, 1, i, j] y)
    {{ y = Resize <mode = "linear"> (x, , scales) }}"""
    model = graph(text, {"scales": np.float32([1, 1, 2, 2])})
    opened = open_calibration(model, [np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype(np.float32)])
    halved = to_float16(model, opened).model
    resize = next(n for n in halved.graph if n.op_type == "Resize")
    assert [v.dtype if v else None for v in resize.inputs] == [HALF, None, SINGLE]
    onnxruntime.InferenceSession(ir.to_proto(halved).SerializeToString())


def test_sub_graphs_stay_as_they_are_with_what_they_read() -> None:
    text = f"""{HEAD} g (float[n, 4] x, bool c) => (float[n, 4] y)
    {{
      a = Relu (x)
      b = If (c) <then_branch = t () => (float[n, 4] u) {{ u = Neg (a) }},
                  else_branch = e () => (float[n, 4] v) {{ v = Abs (a) }}>
      y = Relu (b)
    }}"""
    model = graph(text, {})
    opened = open_calibration(model, [{"x": ROWS, "c": np.array(flag)} for flag in (True, False)])
    halved = to_float16(model, opened)
    assert reasons(halved.islands) == {"b": "it has sub-graphs, which stay as they are"}
    for feed in opened.feeds:
        np.testing.assert_allclose(simulate(halved.model)(feed)[0], simulate(model)(feed)[0], rtol=2e-3)
    assert {v.dtype for n in halved.model.graph if n.op_type == "Relu" for v in n.outputs} == {HALF}


def test_operators_of_other_domains_are_refused_by_name() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20, "mine" : 1]>'
        "g (float[n, 4] x) => (float[n, 4] y) { y = mine.Thing (x) }"
    )
    with pytest.raises(UnsupportedGraphError, match="Thing y"):
        convert(ir.from_proto(proto), ())


def test_a_mixed_graph_is_found() -> None:
    model = residual()
    halved = to_float16(model, calibrated(model)).model
    assert not mixed_operands(halved)
    add = maker(halved, "t")
    add.inputs[1].type = ir.TensorType(SINGLE)  # planted
    assert mixed_operands(halved) == ["Relu r1 mixes float16 and float32", "Conv c2 mixes float16 and float32",
                                      "Add t mixes float16 and float32"]  # fmt: skip
    wrong = to_float16(model, calibrated(model)).model
    maker(wrong, "t").replace_input_with(1, maker(wrong, "s").outputs[0])
    with pytest.raises(InvariantError):
        check_typed(wrong)


def test_rounding_is_seen_that_onnxruntime_itself_leaves_out() -> None:
    """In float16 2048 + 0.5 is 2048. ONNX Runtime alone takes the casts out, at every level; `round_values` may not."""
    text = f"{HEAD} g (float[n, 4] x) => (float[n, 4] y) {{ a = Add (x, k) y = Sub (a, k) }}"
    model = convert(graph(text, {"k": np.float32([2048])}), ())
    rows = np.full((1, 4), 0.5, np.float32)
    for level in (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    ):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        for wanted, data in ((0.5, model), (0.0, round_values(model))):
            session = onnxruntime.InferenceSession(ir.to_proto(data).SerializeToString(), options)
            assert session.run(None, {"x": rows})[0].tolist() == [[wanted] * 4]
    assert simulate(model)({"x": rows})[0].tolist() == [[0.0] * 4]


def test_an_overflow_is_seen() -> None:
    text = f"{HEAD} g (float[n, 4] x) => (float[n, 4] y) {{ a = Mul (x, k) y = Mul (a, q) }}"
    model = graph(text, {"k": np.float32([60000]), "q": np.float32([1e-4])})
    feed = {"x": np.full((1, 4), 2.0, np.float32)}
    assert np.isinf(simulate(convert(model, ()))(feed)[0]).all()
    assert simulate(convert(model, {"a", "y"}))(feed)[0] == pytest.approx(12.0)


@given(st.integers(0, 10**6))
def test_rounded_values_are_exactly_what_numpy_rounds(seed: int) -> None:
    model = convert(ADD, ())
    x, z = np.random.default_rng(seed).standard_normal((2, 3, 4)).astype(np.float32) * 50
    half = (x.astype(np.float16).astype(np.float32) + z.astype(np.float16)).astype(np.float16)
    np.testing.assert_array_equal(simulate(model)({"x": x, "z": z})[0], half.astype(np.float32))


ADD = graph(f"{HEAD} g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) {{ y = Add (x, z) }}", {})


def test_frames_of_several_sizes_are_one_calibration() -> None:
    model = residual()
    opened = open_calibration(model, [frames(2), frames(2, (8, 20))])
    assert len(to_float16(model, opened).islands) == 3
