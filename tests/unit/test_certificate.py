"""The certificate must be able to fail: faults planted one by one, and the tolerance it allows."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeslim.errors import CertificateError
from edgeslim.exporter.certificate import Probe, Runner, Tolerance, certify, random_probe, require
from edgeslim.exporter.export import runner_from_graph
from edgeslim.runtime import Certificate

NET = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[n, 3, h, w] x) => (float[n, 2, h, w] y, float[n, 8, 1, 1] z)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, weight)
  b = BatchNormalization (a, scale, shift, mean, variance)
  c = Relu (b)
  y = Conv (c, head)
  z = GlobalAveragePool (c)
}
"""
Arrays = dict[str, NDArray[np.float32]]
PROBES = [random_probe([(1, 3, 8, 8), (2, 3, 6, 10)]), random_probe([(1, 3, 8, 8)], seed=1)]


def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "weight": rng.standard_normal((8, 3, 3, 3), np.float32),
        "scale": rng.uniform(0.5, 1.5, 8).astype(np.float32),
        "shift": rng.uniform(-0.5, 0.5, 8).astype(np.float32),
        "mean": rng.uniform(-0.5, 0.5, 8).astype(np.float32),
        "variance": rng.uniform(0.5, 2.0, 8).astype(np.float32),
        "head": rng.standard_normal((2, 8, 1, 1), np.float32),
    }


def runner(weights: Arrays) -> Runner:
    proto = onnx.parser.parse_model(NET)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in weights.items())
    return runner_from_graph(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))


REFERENCE = runner(arrays())


def planted(name: str, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Runner:
    """The net with one initializer changed."""
    weights = arrays()
    return runner({**weights, name: np.ascontiguousarray(change(weights[name]), np.float32)})


def changed(change: Callable[[list[NDArray[np.generic]]], list[NDArray[np.generic]]]) -> Runner:
    """The net with its outputs changed."""
    return lambda batch: change([a.copy() for a in REFERENCE(batch)])


def not_a_number(outputs: list[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    outputs[1].flat[3] = np.nan  # type: ignore[index]
    return outputs


def double_first(a: NDArray[np.float32]) -> NDArray[np.float32]:
    return a * np.array([2.0] + [1.0] * 7, np.float32)


FAULTS: dict[str, tuple[Runner, bool]] = {
    "batch norm scale doubled": (planted("scale", lambda a: 2 * a), True),
    "batch norm scale of one channel doubled": (planted("scale", double_first), True),
    "one channel off": (planted("head", lambda a: np.roll(a, 1, axis=1)), True),
    "one channel off in the first layer": (planted("weight", lambda a: np.roll(a, 1, axis=0)), True),
    "two channels exchanged": (planted("head", lambda a: a[:, [1, 0, *range(2, 8)]]), True),
    "a shift forgotten": (planted("shift", np.zeros_like), True),
    "one weight off by a hundredth": (planted("weight", lambda a: a + np.float32(0.01) * (a == a.max())), True),
    "not a number": (changed(not_a_number), False),
    "infinite": (changed(lambda o: [o[0] / np.float32(0), o[1]]), False),  # type: ignore[list-item, operator]
    "an output is missing": (changed(lambda o: o[:1]), False),
    "no output": (changed(lambda o: []), False),
    "an output too many": (changed(lambda o: [*o, o[0]]), False),
    "outputs exchanged": (changed(lambda o: o[::-1]), False),
    "another shape of the same size": (changed(lambda o: [o[0].swapaxes(2, 3)[:, :, :, :-1], o[1]]), False),
    "a shape that would broadcast": (changed(lambda o: [o[0][:, :1], o[1]]), False),
}


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_fails(name: str) -> None:
    fault, measurable = FAULTS[name]
    certificate = certify(("masked torch", REFERENCE), {"same": REFERENCE, "faulty": fault}, PROBES)
    good, bad = certificate.stages[:2], certificate.stages[2:]
    assert all(s.passed and s.max_abs == 0.0 for s in good)
    assert not any(s.passed for s in bad)
    assert not certificate.passed
    assert [s.max_abs is not None and s.max_rel is not None for s in bad] == [measurable, measurable]


def test_the_net_itself_passes_with_room() -> None:
    weights = arrays()
    deviation = np.sqrt(weights["variance"] + 1e-5)
    folded = {  # batch norm folded into the convolution by hand: the same net, other roundings
        **weights,
        "weight": weights["weight"] * (weights["scale"] / deviation)[:, None, None, None],
        "scale": np.ones(8, np.float32),
        "shift": weights["shift"] - weights["mean"] * weights["scale"] / deviation,
        "mean": np.zeros(8, np.float32),
        "variance": np.ones(8, np.float32) - np.float32(1e-5),
    }
    certificate = certify(("dense", REFERENCE), {"folded": runner(folded)}, PROBES)
    assert certificate.passed
    for stage in certificate.stages:
        assert stage.max_abs is not None and 0.0 < stage.max_abs < stage.atol
        assert (stage.name, stage.reference, stage.rtol) == ("folded", "dense", 1e-4)
    assert [s.inputs for s in certificate.stages] == [probe.description for probe in PROBES]
    assert "random" in PROBES[0].description and "3x8x8" in PROBES[0].description and "3x6x10" in PROBES[0].description
    require(certificate)


def constant(values: object) -> Runner:
    return lambda batch: [np.array(values, np.float64)]


def stage_of(seen: object, wanted: object, tolerance: Tolerance | None = None) -> Certificate:
    probe = Probe("real", [np.zeros((1, 1), np.float32)])
    return certify(("b", constant(wanted)), {"a": constant(seen)}, [probe], tolerance)


@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=6),
    st.integers(0, 5),
    st.floats(0.0, 4.0),
    st.sampled_from([1e-6, 1e-3]),
    st.sampled_from([0.0, 1e-4, 1e-2]),
)
def test_the_law_of_the_tolerance(
    wanted: list[float], place: int, factor: float, relative_atol: float, rtol: float
) -> None:
    """|a - b| <= relative_atol * max |b| + rtol * |b|, at every element."""
    place %= len(wanted)
    allowed = relative_atol * max(map(abs, wanted)) + rtol * abs(wanted[place])
    seen = list(wanted)
    seen[place] += factor * allowed
    tolerance = Tolerance(relative_atol=relative_atol, rtol=rtol)
    (stage,) = stage_of(seen, wanted, tolerance).stages
    error = abs(seen[place] - wanted[place])
    if abs(error - allowed) > 1e-9 * allowed:  # on the boundary itself rounding decides
        assert stage.passed == (error < allowed)
    assert stage.max_abs == error
    relative = min(error / abs(wanted[place]), sys.float_info.max) if wanted[place] else 0.0
    assert stage.max_rel == pytest.approx(relative)
    assert (stage.atol, stage.rtol) == (relative_atol * max(map(abs, wanted)), rtol)


def test_the_tolerance_belongs_to_its_own_output() -> None:
    """A large output must not lend its tolerance to a small one."""
    wanted = [np.full((1, 2), 1e6), np.full((1, 2), 1e-3)]
    seen = [wanted[0], wanted[1] * 1.01]
    probe = Probe("random", [np.zeros((1, 1), np.float32)])
    assert not certify(("b", lambda _: list(wanted)), {"a": lambda _: list(seen)}, [probe]).passed


def test_a_reference_of_zeros_allows_nothing() -> None:
    assert stage_of([0.0, 0.0], [0.0, 0.0]).passed
    assert not stage_of([0.0, 1e-30], [0.0, 0.0]).passed


def test_a_subnormal_reference_has_a_finite_relative_error() -> None:
    (stage,) = stage_of([1.0, 1e-6], [1.0, 5e-324]).stages
    assert stage.passed and stage.max_rel == sys.float_info.max


def test_empty_outputs_agree() -> None:
    assert stage_of(np.empty((1, 0)), np.empty((1, 0))).passed
    assert not stage_of(np.empty((1, 0)), np.empty((1, 1))).passed


def test_a_reference_that_is_not_finite_proves_nothing() -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(CertificateError, match=r"itself gives values that are not finite on") as caught:
            stage_of([value], [value])
        assert "weights" in caught.value.hint


def test_without_a_stage_nothing_is_proven() -> None:
    assert not certify(("b", REFERENCE), {}, PROBES).passed
    assert not certify(("b", REFERENCE), {"a": REFERENCE}, []).passed


def test_require_names_the_stage_and_the_numbers() -> None:
    faulty = planted("scale", lambda a: 2 * a)
    certificate = certify(("masked torch", REFERENCE), {"same": REFERENCE, "compact ONNX": faulty}, PROBES[1:])
    stage = certificate.stages[1]
    with pytest.raises(CertificateError) as caught:
        require(certificate)
    assert caught.value.exit_code == 3
    assert caught.value.message == (
        f"compact ONNX differs from masked torch on {PROBES[1].description}: "
        f"largest absolute error {stage.max_abs:.3g}, allowed {stage.atol:.3g} + {stage.rtol:.3g} * |reference|"
    )
    assert "nothing was written" in caught.value.hint
    with pytest.raises(CertificateError, match="largest absolute error not finite, or of another shape"):
        require(certify(("a", REFERENCE), {"b": changed(lambda o: o[:1])}, PROBES))


def test_random_probes_repeat() -> None:
    shapes = [(1, 3, 4, 4), (2, 3, 4, 6)]
    first, again, other = random_probe(shapes), random_probe(shapes), random_probe(shapes, seed=1)
    assert [b.shape for b in first.batches] == shapes
    assert all(np.array_equal(a, b) for a, b in zip(first.batches, again.batches))
    assert not np.array_equal(first.batches[0], other.batches[0])
    assert all(b.dtype == np.float32 for b in first.batches)
