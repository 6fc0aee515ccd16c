"""Bias correction, deviation and layers against what is known beforehand."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from edgeslim.errors import DataError, ExportError
from edgeslim.exporter.precision import (
    Calibration,
    Int8Options,
    compare_layers,
    compared_values,
    measure_deviation,
    quantize,
    simulate,
    to_float16,
)
from edgeslim.exporter.precision.int8.bias import correct_bias, images_within
from edgeslim.exporter.precision.int8.layers import find_layers

from .precise import calibrated, residual

PLAIN = Int8Options(correct_bias=False, method="minmax")


def shifted(model: ir.Model, name: str, by: NDArray[np.generic] | float) -> ir.Model:
    """A copy with an initializer changed."""
    copy = model.clone()
    value = copy.graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.tensor((value.const_value.numpy() + by).astype(np.float32), name=name)
    return copy


def means(model: ir.Model, value: str, opened: Calibration) -> NDArray[np.float64]:
    run = simulate(model, [value])
    return np.mean([run(feed)[0].mean(axis=(0, 2, 3), dtype=np.float64) for feed in opened.feeds], axis=0)


def test_biases_are_corrected_where_they_are_heard_each_after_those_before() -> None:
    model = residual()
    opened = calibrated(model)
    quantized = quantize(model, opened, PLAIN).model
    planted = shifted(shifted(quantized, "b1", 0.2), "b2", np.linspace(-0.3, 0.3, 8))
    layers, _ = find_layers(model)
    corrected, shifts = correct_bias(model, planted, layers, opened)
    assert set(shifts) == {"c1", "c2", "y"} and shifts["c1"] > 0.1
    for value in ("c1", "t", "y"):  # the second layer is heard in the sum
        before = np.abs(means(planted, value, opened) - means(model, value, opened)).max()
        after = np.abs(means(corrected, value, opened) - means(model, value, opened)).max()
        assert after < 1e-5 < before, value
    biases = {n: corrected.graph.initializers[n].const_value.numpy() for n in ("b1", "b2")}
    wanted = {n: model.graph.initializers[n].const_value.numpy() for n in ("b1", "b2")}
    for name, bias in biases.items():
        np.testing.assert_allclose(bias, wanted[name], atol=0.03)  # what was planted is gone, up to rounding


def test_a_layer_without_a_bias_gets_one() -> None:
    model = residual()
    for node in model.graph:
        if node.op_type == "Conv":
            node.replace_input_with(2, None)
    opened = calibrated(model)
    corrected, shifts = correct_bias(model, quantize(model, opened, PLAIN).model, find_layers(model)[0], opened)
    assert set(shifts) == {"c1", "c2", "y"}
    assert np.abs(means(corrected, "y", opened) - means(model, "y", opened)).max() < 1e-5


def test_large_images_are_held_one_at_a_time() -> None:
    model = residual()
    opened, layers = calibrated(model), find_layers(model)[0]
    each = 4 * 6 * 8 * 12 * 16  # six float32 values of eight channels
    assert [images_within(model, layers, opened, limit) for limit in (1, each, 5 * each)] == [1, 1, 5]


def test_a_correction_is_kept_only_if_the_net_comes_nearer() -> None:
    model = residual()
    opened = calibrated(model, 20)
    made = quantize(model, opened, Int8Options(method="minmax"))
    assert made.correction is not None
    kept = made.model.graph.initializers["b1"].const_value.numpy()
    original = model.graph.initializers["b1"].const_value.numpy()
    assert made.correction.kept == (made.correction.after < made.correction.before)
    assert made.correction.kept == (not np.array_equal(kept, original))
    worse = dataclasses.replace(made.correction, after=2 * made.correction.before)
    assert not worse.kept


def test_a_net_is_no_distance_from_itself() -> None:
    model = residual()
    (off,) = measure_deviation(model, model.clone(), calibrated(model))
    assert (off.max_abs, off.relative_rms) == (0, 0) and off.largest > 0


def test_a_deviation_is_what_was_planted() -> None:
    model = residual()
    (off,) = measure_deviation(model, shifted(model, "b3", np.float32([0, 0.5, 0, 0])), calibrated(model))
    assert off.max_abs == pytest.approx(0.5, rel=1e-3)
    run = simulate(model)
    outputs = np.stack([run(feed)[0] for feed in calibrated(model).feeds])
    wanted = 0.5 * np.sqrt(outputs.size / 4) / np.linalg.norm(outputs)
    assert off.relative_rms == pytest.approx(float(wanted), rel=1e-3)


def test_answers_that_are_no_numbers_are_infinitely_far() -> None:
    model = residual()
    opened = calibrated(model)
    (off,) = measure_deviation(model, model, opened, lambda feed: [simulate(model)(feed)[0] * np.float32(np.nan)])
    assert np.isinf(off.max_abs) and np.isinf(off.relative_rms)
    (off,) = measure_deviation(model, model, opened, lambda feed: [simulate(model)(feed)[0][:, :2]])
    assert np.isinf(off.relative_rms)


def test_other_outputs_and_no_frames_are_refused() -> None:
    model, other = residual(), residual()
    other.graph.outputs[0].name = "z"
    with pytest.raises(ExportError, match=r"\['z'\], the float32 net \['y'\]"):
        measure_deviation(model, other, calibrated(model))
    with pytest.raises(DataError, match="no frames"):
        measure_deviation(model, model, Calibration(feeds=(), images=0))


def test_the_first_layer_that_leaves_is_named() -> None:
    model = residual()
    opened = calibrated(model)
    found = compare_layers(model, shifted(model, "w2", 0.3), opened, limit=0.01)
    assert found.first is not None and (found.first.value, found.first.operator, found.first.layer) == (
        "c2",
        "Conv",
        "w2",
    )
    assert [layer.value for layer in found.layers][:6] == ["p", "m", "s", "x", "c1", "r1"]
    assert found.worst is not None and found.worst.relative_rms >= found.first.relative_rms
    text = found.describe()
    assert text.startswith("first over 0.01: Conv c2 (weight w2)") and "before it Relu r1" in text and "worst:" in text


def test_variants_of_a_net_are_compared_by_the_names_they_kept() -> None:
    model = residual()
    opened = calibrated(model)
    int8 = quantize(model, opened, PLAIN).model
    names = [v.name for node in model.graph for v in node.outputs]
    for variant, limit in (
        (int8, 0.05),
        (to_float16(model, opened).model, 2e-3),
        (to_float16(int8, opened).model, 0.05),
    ):
        found = compare_layers(model, variant, opened, limit)
        assert compared_values(model, variant) == names == [layer.value for layer in found.layers]
        assert found.first is None and f"all {len(names)} values lie within" in found.describe()
