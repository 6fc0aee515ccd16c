"""Making up for a cut without training: each part against plain numpy, and planted cases with a known answer."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_ir.passes import common

from edgeslim.errors import ConfigError, InvariantError
from edgeslim.exporter.channels import ChannelMap, analyze
from edgeslim.exporter.foreign.feeds import Arrays
from edgeslim.exporter.plan import plan_from_cut
from edgeslim.exporter.taps import tapped
from edgeslim.exporter.weights import with_weights
from edgeslim.trainer.criteria.reconstruction import Reconstruction
from edgeslim.trainer.recovery import METHODS, Correction, distance, image_batches, recover
from edgeslim.trainer.recovery.batch_norm import reestimate
from edgeslim.trainer.recovery.least_squares import _correct_layer, correct
from edgeslim.trainer.recovery.normal import Normal
from edgeslim.trainer.recovery.readers import find_heard, find_readers
from edgeslim.trainer.recovery.twins import merge_twins
from edgeslim.trainer.recovery.walk import Walk

BLOCK = """
<ir_version: 8, opset_import: ["" : 18]>
block (float[n, 3, h, w] x) => (float[n, 4, h, w] y)
{
  s = Conv <pads = [1, 1, 1, 1]> (x, stem)
  r = Relu (s)
  a = Conv <pads = [1, 1, 1, 1]> (r, first)
  b = BatchNormalization (a, first_scale, first_shift, first_mean, first_var)
  c = Relu (b)
  d = Conv <pads = [1, 1, 1, 1]> (c, second)
  e = BatchNormalization (d, second_scale, second_shift, second_mean, second_var)
  f = Add (e, r)
  g = Relu (f)
  y = Conv (g, head, head_bias)
}
"""
SHAPES: dict[str, tuple[int, ...]] = {"stem": (6, 3, 3, 3), "first": (8, 6, 3, 3), "second": (6, 8, 3, 3)}
SHAPES |= {"head": (4, 6, 1, 1), "head_bias": (4,)}
SHAPES |= {
    f"{layer}_{part}": (n,) for layer, n in (("first", 8), ("second", 6)) for part in ("scale", "shift", "mean", "var")
}


def weights(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    found = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    return {n: np.abs(a) + 0.5 if n.endswith(("var", "scale")) else a for n, a in found.items()}


def block(arrays: dict[str, NDArray[np.float32]] | None = None) -> ir.Model:
    """A residual block between two convolutions."""
    proto = onnx.parser.parse_model(BLOCK)
    for name, array in (arrays or weights()).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)
    common.ShapeInferencePass()(model)
    return model


def images(count: int = 10, seed: int = 7) -> list[Arrays]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((2, 3, 12, 10)).astype(np.float32)} for _ in range(count)]


@dataclass(frozen=True)
class Cut:
    dense: ir.Model
    masked: ir.Model
    channels: ChannelMap
    labels: Collection[int]


def cut(model: ir.Model, family: str, units: Sequence[int], **more: Sequence[int]) -> Cut:
    """The net with units of a family, and of others by their names, silenced."""
    channels = analyze(model)
    labels = [int(channels.family(f).labels[u]) for f, us in {family: units, **more}.items() for u in us]
    plan = plan_from_cut(channels, labels)
    arrays = {n: v.const_value.numpy() for n, v in model.graph.initializers.items() if v.const_value is not None}
    masked = with_weights(model, {name: plan.mask(name, arrays[name]) for name in plan.initializers})
    return Cut(model, masked, channels, labels)


def values(model: ir.Model, names: Sequence[str], given: Arrays) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(tapped(model, names))
    return [np.asarray(a) for a in session.run(list(names), dict(given))]


def array(model: ir.Model, name: str) -> NDArray[np.float32]:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return np.asarray(value.numpy(), np.float32)


# --- a graph piece by piece ----------------------------------------------------------------------------------------


def test_a_walk_computes_what_the_whole_graph_computes() -> None:
    model, given = block(), images(3)
    walk = Walk(model, given)
    for place, names in (("a", ["r", "c"]), ("a", ["f"]), ("d", ["c", "r", "y"]), ("y", ["g", "y"])):
        walk.advance(place)
        for name, batches in zip(names, walk.peek(names), strict=True):
            for batch, one in zip(batches, given, strict=True):
                np.testing.assert_allclose(batch, values(model, [name], one)[0], rtol=1e-5, atol=1e-5)


def test_a_changed_weight_counts_from_there_on() -> None:
    model, given = block(), images(1)
    walk = Walk(model, given)
    walk.advance("d")
    (before,) = walk.peek(["c"])
    walk.weights["first"] = np.zeros(SHAPES["first"], np.float32)  # behind: nothing moves
    walk.weights["second"] = 2 * weights()["second"]
    after, d = walk.peek(["c", "d"])
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_allclose(d[0], 2 * values(model, ["d"], given[0])[0], rtol=1e-4, atol=1e-4)


def test_a_walk_does_not_go_back() -> None:
    walk = Walk(block(), images(1))
    walk.advance("d")
    with pytest.raises(InvariantError, match="computed already"):
        walk.advance("a")


def test_a_walk_goes_through_branches_and_sequences() -> None:
    proto = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 18]>
    odd (float[n, 4] x, bool k) => (float[n, 4] y)
    {
      one = Constant <value = int64 {1}> ()
      a = Relu (x)
      p = SplitToSequence <axis = 1> (a)
      b = If (k) <then_branch = t () => (float[n, 4] q) { q = Neg (a) }, 
                  else_branch = e () => (float[n, 4] q2) { q2 = Identity (x) }>
      c = SequenceAt (p, one)
      y = Add (b, c)
    }""")
    given = {"x": np.arange(-4, 4, dtype=np.float32).reshape(2, 4), "k": np.array(True)}
    walk = Walk(ir.from_proto(proto), [given])
    for place in ("b", "c", "y"):
        walk.advance(place)
        ((y,),) = walk.peek(["y"])
        relu = np.maximum(given["x"], 0)
        np.testing.assert_array_equal(y, -relu + relu[:, 1:2])


# --- least squares ---------------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 60), st.integers(0, 1000))
def test_normal_equations_know_the_error_of_any_change(features: int, outputs: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, count, features)).astype(np.float32)
    r = rng.standard_normal((2, count, outputs)).astype(np.float32)
    first, second = Normal(2, features, outputs), Normal(2, features, outputs)
    first.add(x[:, : count // 2], r[:, : count // 2])
    second.add(x[:, count // 2 :], r[:, count // 2 :])
    both = first + second
    change = rng.standard_normal((2, features, outputs))
    np.testing.assert_allclose(both.left(change), np.square(r - x @ change).sum(axis=1), rtol=1e-4, atol=1e-4)
    best = both.solve(1e-3)
    nudged = best + 1e-2 * rng.standard_normal(best.shape)

    def objective(d: NDArray[np.float64]) -> float:
        damping = 1e-3 * np.trace(both.gram, axis1=1, axis2=2) / features
        return float(both.left(d).sum() + (damping * np.square(d).sum(axis=(1, 2))).sum())

    assert objective(best) <= objective(nudged) + 1e-6


def test_what_a_layer_reads_times_its_matrix_is_what_it_says() -> None:
    model = block()
    readers = {r.layer: r for r in find_readers(analyze(model))}
    assert set(readers) == {"first", "second", "head"}  # the stem reads the image, which has no channels to lose
    for name, reader in readers.items():
        out = reader.node.outputs[0].name or ""
        x, y = values(model, [reader.source, out], images(1)[0])
        seen, said = reader.look(x, y, 50, np.random.default_rng(0))
        bias = array(model, "head_bias") if name == "head" else 0.0
        np.testing.assert_allclose(seen @ reader.matrix(array(model, name))[0] + bias, said, rtol=1e-3, atol=1e-3)
        back = reader.weight(reader.matrix(array(model, name)), array(model, name))
        np.testing.assert_array_equal(back, array(model, name))


def test_a_layer_is_heard_behind_its_norm_and_the_addition() -> None:
    model = block()
    channels = analyze(model)
    readers = {r.layer: r for r in find_readers(channels)}
    present = Walk(model, []).weights
    heard = {name: find_heard(r, channels.parameters, present) for name, r in readers.items()}
    assert {n: (h.value, h.shift) for n, h in heard.items()} == {
        "first": ("b", "first_shift"), "second": ("f", "second_shift"), "head": ("y", "head_bias"),
    }  # fmt: skip
    rng, given = np.random.default_rng(1), images(1)[0]
    change = rng.standard_normal(SHAPES["second"]).astype(np.float32)
    before, d = values(model, ["f", "d"], given)
    louder = with_weights(model, {"second": array(model, "second") + change})
    (after,), (e,) = values(louder, ["f"], given), values(louder, ["d"], given)
    scale = heard["second"].scale.reshape(1, -1, 1, 1)
    np.testing.assert_allclose(after - before, scale * (e - d), rtol=1e-2, atol=1e-3)


def test_a_twin_speaks_for_the_channel_that_left() -> None:
    arrays = weights()
    for part in ("", "_scale", "_shift", "_mean", "_var"):
        arrays["first" + part][5] = arrays["first" + part][2]
    arrays["first_scale"][5] *= 2  # the same map, twice as large
    arrays["first_shift"][5] *= 2
    here = cut(block(arrays), "first", [5])
    for method in (correct, merge_twins):
        changed, _ = method(here.dense, here.masked, here.channels, here.labels, images())
        mended = with_weights(here.masked, changed)
        assert distance(here.masked, here.dense, images(2, seed=9)) > 0.05
        assert distance(mended, here.dense, images(2, seed=9)) < 1e-3, method
    changed, _ = merge_twins(here.dense, here.masked, here.channels, here.labels, images())
    wanted = arrays["second"].copy()
    wanted[:, 2] += 2 * wanted[:, 5]
    np.testing.assert_allclose(changed["second"], wanted, rtol=1e-4, atol=1e-5)


def test_a_layer_with_too_many_inputs_to_compare_keeps_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    here = cut(block(), "first", [1])
    monkeypatch.setattr("edgeslim.trainer.recovery.twins.LARGEST_WIDTH", 7)
    changed, (correction,) = merge_twins(here.dense, here.masked, here.channels, here.labels, images(3))
    assert not changed and correction.skipped == "8 inputs, at most 7 are compared with each other"


def test_correction_changes_only_what_stays() -> None:
    here = cut(block(), "first", [0, 3, 6])
    changed, corrections = correct(here.dense, here.masked, here.channels, here.labels, images())
    assert set(changed) == {"second", "second_shift", "head", "head_bias"}
    np.testing.assert_array_equal(changed["second"][:, [0, 3, 6]], weights()["second"][:, [0, 3, 6]])
    seen = {c.layer: c for c in corrections}
    for layer in ("second", "head"):
        before, after = seen[layer].error_before, seen[layer].error_after
        assert before is not None and after is not None and after < before and not seen[layer].skipped
    mended = with_weights(here.masked, changed)
    unseen = images(4, seed=99)
    assert distance(mended, here.dense, unseen) < 0.8 * distance(here.masked, here.dense, unseen)


def test_constants_of_a_trace_are_not_corrected() -> None:
    """A module that computes with a plain tensor does not give it away: what is not in its state cannot be changed."""
    model = block()
    here = cut(model, "stem", [1])
    own = frozenset(weights()) - {"second", "first_mean"}
    channels = analyze(model, own)
    for method in METHODS.values():
        changed, _ = method(here.dense, here.masked, channels, here.labels, images())
        assert set(changed) <= own
    _, corrections = correct(here.dense, here.masked, channels, here.labels, images())
    reasons = {c.layer: c.skipped for c in corrections}
    assert reasons == {"first": "", "second": "its weight is no parameter of the net", "head": ""}


def test_nothing_is_corrected_before_the_cut() -> None:
    here = cut(block(), "stem", [1])
    _, corrections = correct(here.dense, here.masked, here.channels, here.labels, images())
    assert {c.layer for c in corrections} == {"first", "second", "head"}
    here = cut(block(), "first", [1])
    _, corrections = correct(here.dense, here.masked, here.channels, here.labels, images())
    assert {c.layer for c in corrections} == {"second", "head"}


def test_batch_norms_take_the_statistics_of_what_they_hear() -> None:
    here = cut(block(), "stem", [0, 2])
    given = images(5)
    changed, _ = reestimate(here.dense, here.masked, here.channels, here.labels, given)
    fitted = [given[i] for i in (0, 2, 4)]  # the other two decide and report
    maps = np.concatenate([values(here.masked, ["a"], one)[0] for one in fitted])
    np.testing.assert_allclose(changed["first_mean"], maps.mean(axis=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(changed["first_var"], maps.var(axis=(0, 2, 3)), rtol=1e-3)
    np.testing.assert_array_equal(changed["second_var"][[0, 2]], array(here.masked, "second_var")[[0, 2]])
    later = with_weights(here.masked, {n: a for n, a in changed.items() if n.startswith("first")})
    maps = np.concatenate([values(later, ["d"], one)[0] for one in fitted])
    np.testing.assert_allclose(changed["second_mean"][[1, 3]], maps.mean(axis=(0, 2, 3))[[1, 3]], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("batch", "count", "sizes"),
    [("n", 40, [8] * 5), ("n", 400, [64] * 6 + [16]), ("n", 3, [1] * 3), (1, 3, [1] * 3), (4, 10, [4, 4])],
)
def test_images_come_in_the_batches_that_the_net_takes(batch: str | int, count: int, sizes: list[int]) -> None:
    model = ir.from_proto(onnx.parser.parse_model(BLOCK.replace("[n, 3", f"[{batch}, 3")))
    found = image_batches(model, np.zeros((count, 3, 4, 4), np.float32))
    assert [len(one["x"]) for one in found] == sizes


# --- the methods in a row --------------------------------------------------------------------------------------------


def test_methods_follow_each_other_and_say_what_they_bought() -> None:
    here = cut(block(), "first", [0, 3, 6])
    found = recover(here.dense, here.masked, here.channels, here.labels, images(), ["batch_norm", "least_squares"])
    first, second = found.gains
    assert (first.method, second.method) == ("batch_norm", "least_squares") and found.unseen == 2
    assert second.before == first.after and second.after < second.before and second.kept
    mended = with_weights(here.masked, found.changes)
    assert distance(mended, here.dense, [images()[3], images()[8]]) == pytest.approx(second.after, rel=1e-6)


def test_a_method_that_makes_it_worse_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def harmful(*_: object) -> tuple[dict[str, NDArray[np.generic]], tuple[Correction, ...]]:
        return {"head": 100 * weights()["head"]}, (Correction(layer="head", error_before=1.0, error_after=0.0),)

    monkeypatch.setitem(METHODS, "twins", harmful)
    here = cut(block(), "first", [0])
    found = recover(here.dense, here.masked, here.channels, here.labels, images(), ["twins"])
    assert not found.changes and not found.gains[0].kept and found.gains[0].before == found.gains[0].after
    assert found.gains[0].corrections[0].skipped == "the whole net did not gain"


@pytest.mark.parametrize("methods", ["least_squares", ["magic"], [""]])
def test_an_unknown_method(methods: Sequence[str]) -> None:
    here = cut(block(), "first", [0])
    with pytest.raises(ConfigError, match="recovery"):
        recover(here.dense, here.masked, here.channels, here.labels, images(1), methods)


# --- what cannot be made up for --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Net:
    graph: ir.Model
    channels: ChannelMap


def scores(model: ir.Model) -> dict[str, NDArray[np.float64]]:
    channels = analyze(model)
    stack = np.concatenate([np.asarray(one["x"], np.float32) for one in images(20)])
    found = Reconstruction().score(Net(model, channels), stack)
    ends = np.cumsum([family.width for family in channels.families])[:-1]
    return {family.name: part for family, part in zip(channels.families, np.split(found, ends), strict=True)}


def test_one_of_two_twins_costs_nothing_and_then_the_other_does() -> None:
    arrays = weights()
    for part in ("", "_scale", "_shift", "_mean", "_var"):
        arrays["first" + part][5] = arrays["first" + part][2]
    first = scores(block(arrays))["first"]
    low, high = sorted((first[2], first[5]))
    assert np.argmin(first) in (2, 5) and low < 1e-3 * np.median(first) and high > 100 * low


def test_weights_that_are_not_finite_have_no_score() -> None:
    arrays = weights()
    arrays["first"][0, 0, 0, 0] = np.nan
    found = scores(block(arrays))
    assert np.isnan(found["first"]).all()


def test_the_lowest_scores_add_up_to_the_error_that_least_squares_leaves() -> None:
    model = block()
    first = scores(model)["first"]
    gone = np.argsort(first)[:3]
    stack = {"x": np.concatenate([np.asarray(one["x"], np.float32) for one in images(20)])}
    c, f = values(model, ["c", "f"], stack)
    reader = next(r for r in find_readers(analyze(model)) if r.layer == "second")
    scale = find_heard(reader, {"second_shift"}, Walk(model, []).weights).scale
    seen, said = reader.look(c, f, 10**6, np.random.default_rng(0))
    seen = np.concatenate([seen, np.ones((len(seen), 1), np.float32)], axis=1).astype(np.float64)
    kept = np.repeat(~np.isin(np.arange(8), gone), 9)
    target = seen[:, :-1][:, ~kept] @ (reader.matrix(array(model, "second"))[0] * scale)[~kept]
    rest = seen[:, np.append(kept, True)]
    left = target - rest @ np.linalg.lstsq(rest, target, rcond=None)[0]
    error = np.square(left).sum() / np.square(said, dtype=np.float64).sum()
    assert np.sort(first)[:3].sum() == pytest.approx(error, rel=0.15)  # ridge, and never less than the one before


# --- layers in groups, and transposed ones ---------------------------------------------------------------------------

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


def test_the_modules_of_recovery_need_no_torch() -> None:
    for name in ("recover", "walk", "readers", "normal", "least_squares", "twins", "batch_norm", "settle"):
        module = importlib.import_module(f"edgeslim.trainer.recovery.{name}")
        assert not any(getattr(v, "__name__", "").startswith("torch") for v in vars(module).values())
