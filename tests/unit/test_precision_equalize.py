"""Equalisation is exact, evens out what it may, and says why it leaves the rest."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeslim.exporter.precision import open_calibration, simulate
from edgeslim.exporter.precision.int8 import equalize

from .precise import drawn, graph

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
TOLERANCE = 2e-5
"""Relative to the largest output: the same sums in another scaling."""

MOBILE = f"""{HEAD}
net (float[n, 3, h, w] x) => (float[n, 5, h, w] y)
{{
  a = Conv (x, w1, b1)
  ra = Relu (a)
  d = Conv <group = 8, pads = [1, 1, 1, 1]> (ra, w2, b2)
  rd = LeakyRelu (d)
  e = Conv (rd, w3, b3)
  re = PRelu (e, slope)
  y = Conv <group = 2> (re, w4, b4)
}}
"""
SHAPES = {"w1": (8, 3, 1, 1), "b1": (8,), "w2": (8, 1, 3, 3), "b2": (8,), "w3": (6, 8, 1, 1), "b3": (6,),
          "w4": (4, 3, 1, 1), "b4": (4,)}  # fmt: skip


def mobile(seed: int = 0) -> ir.Model:
    """Channels that differ by orders of magnitude, as a folded batch norm leaves them."""
    arrays = drawn(SHAPES, seed)
    rng = np.random.default_rng(seed)
    for maker in ("w1", "w2", "w3"):
        arrays[maker] *= np.float32(10) ** rng.uniform(-2, 2, (len(arrays[maker]), 1, 1, 1)).astype(np.float32)
    arrays["slope"] = rng.uniform(0.1, 0.5, (6, 1, 1)).astype(np.float32)
    return graph(MOBILE.replace("float[n, 5, h, w] y", "float[n, 4, h, w] y"), arrays)


def images(seed: int = 0, channels: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((3, channels, 8, 8)).astype(np.float32)


def spread(weight: NDArray[np.generic], axis: int) -> float:
    """The largest channel over the smallest, by their largest weights."""
    largest = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    return float(largest.max() / largest.min())


def of(model: ir.Model, name: str) -> NDArray[np.generic]:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy()


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_a_chain_with_a_depthwise_layer_says_the_same_and_is_even(seed: int) -> None:
    model = mobile(seed)
    found = equalize(model)
    assert found.pairs == (("w1", "w2"), ("w2", "w3"), ("w3", "w4"))
    wanted, seen = (simulate(m)({"x": images(seed)})[0] for m in (model, found.model))
    np.testing.assert_allclose(seen, wanted, rtol=0, atol=TOLERANCE * float(np.abs(wanted).max()))
    # Of every channel, who makes it and who reads it have the same largest weight.
    for first, second, axis in (("w1", "w2", 0), ("w2", "w3", 1)):
        made = np.abs(of(found.model, first)).reshape(8, -1).max(axis=1)
        read = np.abs(np.moveaxis(of(found.model, second), axis, 0)).reshape(8, -1).max(axis=1)
        np.testing.assert_allclose(made, read, rtol=0.02)


def test_equalising_twice_changes_nothing_more() -> None:
    once = equalize(mobile()).model
    twice = equalize(once).model
    for name in SHAPES:
        np.testing.assert_allclose(of(twice, name), of(once, name), rtol=0.01)


def test_the_original_is_not_touched_and_the_spread_shrinks() -> None:
    model = mobile()
    before = of(model, "w1").copy()
    found = equalize(model).model
    np.testing.assert_array_equal(of(model, "w1"), before)
    assert spread(of(found, "w1"), 0) < 0.2 * spread(before, 0)


def test_transposed_convolutions_and_products_are_evened_out_too() -> None:
    text = f"""{HEAD} net (float[n, 3, h, w] x) => (float[n, 2, i, j] y)
    {{
      a = Conv (x, w1, b1)
      r = Relu (a)
      u = ConvTranspose <strides = [2, 2]> (r, wt, bt)
      s = Relu (u)
      y = Conv (s, w2)
    }}"""
    arrays = drawn({"w1": (6, 3, 1, 1), "b1": (6,), "wt": (6, 4, 2, 2), "bt": (4,), "w2": (2, 4, 1, 1)})
    arrays["w1"] *= np.float32([[[[100.0]]], *[[[[1.0]]]] * 5])
    model = graph(text, arrays)
    found = equalize(model)
    assert found.pairs == (("w1", "wt"), ("wt", "w2"))
    wanted, seen = (simulate(m)({"x": images()})[0] for m in (model, found.model))
    np.testing.assert_allclose(seen, wanted, rtol=0, atol=TOLERANCE * float(np.abs(wanted).max()))
    text = f"""{HEAD} net (float[n, 6] x) => (float[n, 2] y)
    {{ a = Gemm <transB = 1> (x, w1, b1) r = Relu (a) b = MatMul (r, w2) s = Relu (b) y = Gemm (s, w3) }}"""
    model = graph(text, drawn({"w1": (5, 6), "b1": (5,), "w2": (5, 4), "w3": (4, 2)}))
    found = equalize(model)
    assert found.pairs == (("w1", "w2"), ("w2", "w3"))
    rows = np.random.default_rng(0).standard_normal((9, 6)).astype(np.float32)
    wanted, seen = (simulate(m)({"x": rows})[0] for m in (model, found.model))
    np.testing.assert_allclose(seen, wanted, rtol=0, atol=TOLERANCE * float(np.abs(wanted).max()))


@pytest.mark.parametrize(
    "between, reason",
    [
        ("b = Clip (a, low, high) y = Conv (b, w2)", "Clip b comes between"),
        ("b = HardSwish (a) y = Conv (b, w2)", "HardSwish b comes between"),
        ("b = Sigmoid (a) y = Conv (b, w2)", "Sigmoid b comes between"),
        ("r = Relu (a) s = Conv (r, w2) t = Conv (r, w3) y = Add (s, t)", "several layers read its channels"),
        ("r = Add (a, x) y = Conv (r, w2)", "Add r comes between"),
        ("y = Relu (a)", "its channels are an output"),
        ("r = Relu (a) y = Conv (r, w1)", "its weight is shared"),
    ],
)
def test_what_a_factor_does_not_pass_is_declined_with_the_reason(between: str, reason: str) -> None:
    text = f"{HEAD} net (float[n, 4, h, w] x) => (float[n, 4, h, w] y) {{ a = Conv (x, w1) {between} }}"
    arrays: dict[str, NDArray[np.float32]] = drawn({n: (4, 4, 1, 1) for n in ("w1", "w2", "w3") if n in text})
    if "low" in between:
        arrays |= {"low": np.float32(0), "high": np.float32(6)}  # type: ignore[dict-item]
    model = graph(text, arrays)
    found = equalize(model)
    assert not found.pairs
    assert any(d.where == "Conv a" and reason in d.reason for d in found.declined), found.declined
    (wanted,), (seen,) = (simulate(m)({"x": images(channels=4)}) for m in (model, found.model))
    np.testing.assert_array_equal(seen, wanted)


def test_a_wrong_factor_would_be_seen() -> None:
    """Planted, a thousandth: the comparison of the tests above is no formality."""
    model = mobile()
    found = equalize(model).model
    weight = found.graph.initializers["w2"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.001), name="w2")
    wanted, seen = (simulate(m)({"x": images()})[0] for m in (model, found))
    assert float(np.abs(seen - wanted).max()) > TOLERANCE * float(np.abs(wanted).max())


def test_kept_layers_are_not_touched() -> None:
    model = mobile()
    found = equalize(model, {"w2"})
    np.testing.assert_array_equal(of(found.model, "w2"), of(model, "w2"))
    assert found.pairs == (("w3", "w4"),)
    assert open_calibration(model, [images()]).images == 3
