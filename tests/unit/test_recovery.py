"""Making up for a cut without training: each part against plain numpy, and planted cases with a known answer."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_ir.passes import common

from edgeslim.errors import ConfigError, InvariantError
from edgeslim.exporter.channels import analyze
from edgeslim.exporter.walk import Walk
from edgeslim.exporter.weights import with_weights
from edgeslim.trainer.recovery import METHODS, Correction, distance, image_batches, recover
from edgeslim.trainer.recovery.batch_norm import reestimate
from edgeslim.trainer.recovery.least_squares import correct
from edgeslim.trainer.recovery.normal import Normal
from edgeslim.trainer.recovery.readers import find_heard, find_readers
from edgeslim.trainer.recovery.twins import merge_twins

from .silenced import array, cut, images, scores, values

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
    for name, tensor in (arrays or weights()).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(tensor, name))
    model = ir.from_proto(proto)
    common.ShapeInferencePass()(model)
    return model


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


def test_the_modules_of_recovery_need_no_torch() -> None:
    for name in ("recover", "readers", "normal", "least_squares", "twins", "batch_norm", "settle"):
        module = importlib.import_module(f"edgeslim.trainer.recovery.{name}")
        assert not any(getattr(v, "__name__", "").startswith("torch") for v in vars(module).values())
