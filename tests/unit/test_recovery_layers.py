"""Making up for a cut in layers with groups, and in transposed ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from edgeslim.exporter.channels import analyze
from edgeslim.exporter.walk import Walk
from edgeslim.exporter.weights import with_weights
from edgeslim.trainer.recovery import distance
from edgeslim.trainer.recovery.least_squares import _correct_layer, correct
from edgeslim.trainer.recovery.readers import find_readers
from edgeslim.trainer.recovery.twins import merge_twins

from .silenced import array, cut, images, scores, values

ODD = {
    "grouped": ("Conv <group = 2, pads = [1, 1, 1, 1]>", (4, 3, 3, 3)),
    "transposed": ("ConvTranspose <strides = [2, 2], pads = [1, 0, 0, 1]>", (6, 4, 3, 3)),
    "transposed and grouped": ("ConvTranspose <group = 2, strides = [1, 2], dilations = [2, 1]>", (6, 2, 3, 3)),
}


def odd(kind: str, silent: Sequence[int] = (), attributes: str = "") -> ir.Model:
    """stem, ReLU, and a layer of a kind (or of these attributes) that reads its 6 channels and says 4."""
    layer, shape = ODD[kind]
    proto = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : 18]>
    odd (float[n, 3, h, w] x) => (float[n, 4, p, q] y)
    {{
      s = Conv <pads = [1, 1, 1, 1]> (x, stem)
      r = Relu (s)
      y = {attributes or layer} (r, odd, bias)
    }}""")
    rng = np.random.default_rng(0)
    arrays = {"stem": rng.standard_normal((6, 3, 3, 3)), "odd": rng.standard_normal(shape), "bias": np.arange(4.0)}
    axis = 0 if "transposed" in kind else 1
    np.moveaxis(arrays["odd"], axis, 0)[list(silent)] = 0.0
    for name, value in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    model = ir.from_proto(proto)
    common.ShapeInferencePass()(model)
    return model


@pytest.mark.parametrize("kind", ODD)
def test_what_odd_layers_read_times_their_matrix_is_what_they_say(kind: str) -> None:
    model = odd(kind)
    (reader,) = find_readers(analyze(model))
    x, y = values(model, ["r", "y"], images(1)[0])
    seen, said = reader.look(x, y, 10**6, np.random.default_rng(0))
    assert len(said) == y.size // 4
    matrix, groups = reader.matrix(array(model, "odd")), reader.groups
    parts = zip(np.split(seen, groups, 1), matrix, np.split(said, groups, 1), np.split(np.arange(4.0), groups))
    for own, weight, wanted, bias in parts:
        np.testing.assert_allclose(own @ weight + bias, wanted, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(reader.weight(matrix, array(model, "odd")), array(model, "odd"))


@pytest.mark.parametrize("kind", ODD)
def test_odd_layers_are_corrected_as_far_as_least_squares_can(kind: str) -> None:
    here = cut(odd(kind), "stem", [1])
    changed, (correction,) = correct(here.dense, here.masked, here.channels, here.labels, images(20))
    assert set(changed) == {"odd", "bias"} and not correction.skipped
    unseen = {"x": np.concatenate([np.asarray(one["x"], np.float32) for one in images(20, seed=99)])}
    (r, y), (now,) = values(here.masked, ["r", "y"], unseen), values(here.dense, ["y"], unseen)
    (reader,) = find_readers(here.channels)
    seen, lacking = reader.look(r, now - y, 10**6, np.random.default_rng(0))
    left = 0.0
    for own, wanted in zip(np.split(seen, reader.groups, 1), np.split(lacking, reader.groups, 1), strict=True):
        own = np.concatenate([own, np.ones((len(own), 1), np.float32)], axis=1)
        left += np.square(wanted - own @ np.linalg.lstsq(own, wanted, rcond=None)[0]).sum()
    best = float(np.sqrt(left / np.square(now).sum()))
    after = distance(with_weights(here.masked, changed), here.dense, [unseen])
    assert best < 0.9 * distance(here.masked, here.dense, [unseen])
    assert after == pytest.approx(best, rel=0.02)


@pytest.mark.parametrize("kind", ODD)
def test_twins_are_merged_group_by_group(kind: str) -> None:
    model = odd(kind)
    stem = array(model, "stem").copy()
    stem[[1, 4]] = 3 * stem[[2, 5]]  # ReLU keeps the multiple
    here = cut(with_weights(model, {"stem": stem}), "stem", [1, 4] if kind == "transposed" else [1])
    changed, _ = merge_twins(here.dense, here.masked, here.channels, here.labels, images(3))
    assert distance(here.masked, here.dense, images(2, seed=9)) > 0.1
    assert distance(with_weights(here.masked, changed), here.dense, images(2, seed=9)) < 1e-5


@pytest.mark.parametrize("kind", ODD)
def test_odd_layers_score_what_cannot_be_made_up_for(kind: str) -> None:
    model = odd(kind)
    found = scores(model)["stem"]
    here = cut(model, "stem", [int(np.argmin(found))])
    given = images(20)
    changed, _ = correct(here.dense, here.masked, here.channels, here.labels, given)
    left = distance(with_weights(here.masked, changed), here.dense, given)
    assert np.sqrt(found.min()) == pytest.approx(left, rel=0.05)
    assert len(found) == (6 if kind == "transposed" else 3)


def test_a_depthwise_layer_follows_what_it_hears() -> None:
    proto = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 18]>
    thin (float[n, 3, h, w] x) => (float[n, 4, h, w] y)
    {
      s = Conv <pads = [1, 1, 1, 1]> (x, stem)
      r = Relu (s)
      a = Conv (r, point)
      d = Conv <group = 5, pads = [1, 1, 1, 1]> (a, deep)
      y = Conv (d, head)
    }""")
    rng = np.random.default_rng(0)
    shapes = {"stem": (6, 3, 3, 3), "point": (5, 6, 1, 1), "deep": (10, 1, 3, 3), "head": (4, 10, 1, 1)}
    for name, shape in shapes.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name))
    model = ir.from_proto(proto)
    common.ShapeInferencePass()(model)
    here = cut(model, "stem", [1, 2], point=[3])
    changed, corrections = correct(here.dense, here.masked, here.channels, here.labels, images(20))
    seen = {c.layer: c for c in corrections}
    assert set(seen) == {"point", "deep", "head"} and not seen["deep"].skipped
    gone = np.arange(10) // 2 == 3
    np.testing.assert_array_equal(changed["deep"][gone], array(here.masked, "deep")[gone])
    assert (changed["deep"][~gone] != array(here.masked, "deep")[~gone]).all()
    before, after = seen["deep"].error_before, seen["deep"].error_after
    assert before is not None and after is not None and after < before


def test_groups_that_lose_different_channels_keep_their_weights() -> None:
    here = cut(odd("grouped"), "stem", [1])
    (reader,) = find_readers(here.channels)
    lopsided = np.ones(len(here.channels.labels), np.bool_)
    separate = dataclasses.replace(reader, ids=np.arange(6))
    lopsided[1] = False
    walks = [Walk(form, images(5)) for form in (here.dense, here.masked)]
    correction, arrays = _correct_layer(*walks, separate, here.channels.parameters, lopsided)
    assert not arrays and correction.skipped == "its groups lose different channels, or all"


def test_layers_that_are_no_plain_product_count_with_what_is_contributed() -> None:
    named = 'Conv <group = 2, auto_pad = "SAME_UPPER">'
    model = odd("grouped", silent=[2], attributes=named)
    assert [r.unfit for r in find_readers(analyze(model))] == ["its padding is given by name or size"]
    found = scores(model)["stem"]
    assert found.shape == (3,) and found[2] == 0 and (found[:2] > 0).all()
