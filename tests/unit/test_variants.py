"""Variants and frame ranges in a bundle: kept by a round trip, refused where they are impossible, asked for by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim import schema
from edgeslim.errors import BundleError, CertificateError, ConfigError
from edgeslim.exporter.bundle import write_bundle
from edgeslim.runtime import (
    Deviation,
    FrameRange,
    GoldenCase,
    GoldenSpec,
    GroupChoice,
    Manifest,
    Variant,
    parse_manifest,
    read_bundle,
)
from edgeslim.runtime.backends.fake import FakeBackend
from edgeslim.runtime.golden import verify_cases

from .conftest import build_manifest, build_model

numbers = st.floats(-1e6, 1e6)
sizes = st.floats(0, 1e6)
scores = st.dictionaries(st.text(max_size=4), numbers, max_size=2)
choices = st.builds(
    GroupChoice,
    group=st.text(max_size=4),
    layers=st.lists(st.text(max_size=4), max_size=2).map(tuple),
    precision=st.sampled_from(("fp32", "int8")),
    gain_ms=st.none() | numbers,
    gain_low_ms=st.none() | numbers,
    gain_high_ms=st.none() | numbers,
    loss=st.none() | numbers,
    reason=st.text(max_size=4),
)
variants = st.builds(
    Variant,
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,9}", fullmatch=True).filter(lambda name: name != "fp32"),
    precision=st.sampled_from(("fp16", "int8")),
    file=st.just("model.low.onnx"),
    placement=st.sampled_from((None, "tensorrt", "onnxruntime")),
    output_dtype=st.sampled_from(("float32", "float16")),
    weight_bytes=st.integers(0),
    atol=sizes,
    rtol=sizes,
    relative_rms=sizes,
    deviation=st.builds(Deviation, frames=st.integers(1, 9), max_abs=sizes, relative_rms=sizes),
    metrics=scores,
    model_metrics=scores,
    validation_images=st.none() | st.integers(1, 9),
    settings=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
    islands=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
    search=st.lists(choices, max_size=2).map(tuple),
)
LOW = Variant(
    name="int8",
    precision="int8",
    file="model.int8.onnx",
    weight_bytes=5,
    atol=0.1,
    rtol=0.1,
    relative_rms=0.1,
    deviation=Deviation(frames=2, max_abs=0.1, relative_rms=0.01),
)


@given(variants)
def test_a_round_trip_keeps_a_variant(variant: Variant) -> None:
    manifest = dataclasses.replace(build_manifest(), variants=(variant,))
    assert parse_manifest(schema.dumps(manifest).encode(), "here") == manifest


def test_a_frame_range_holds_what_lies_between_its_ends() -> None:
    frames = FrameRange(minimum=(1, 8, 8), optimum=(1, 16, 24), maximum=(4, 16, 24))
    assert (1, 8, 8) in frames and (4, 16, 24) in frames and (2, 8, 24) in frames
    assert (5, 8, 8) not in frames and (1, 8, 32) not in frames and (1, 8) not in frames
    assert str(frames) == "1x8x8:1x16x24:4x16x24"
    assert str(FrameRange(minimum=(1, 8, 8), optimum=(1, 8, 8), maximum=(1, 8, 8))) == "1x8x8"
    manifest = dataclasses.replace(build_manifest(), frame_range=frames)
    assert parse_manifest(schema.dumps(manifest).encode(), "here") == manifest


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FrameRange(minimum=(1, 8, 8), optimum=(1, 4, 8), maximum=(1, 8, 8)), "height is 8 <= 4 <= 8"),
        (lambda: FrameRange(minimum=(0, 8, 8), optimum=(1, 8, 8), maximum=(1, 8, 8)), "batch is 0 <= 1 <= 1"),
        (lambda: Deviation(frames=1, max_abs=float("nan"), relative_rms=0.0), "max_abs is nan"),
        (lambda: dataclasses.replace(LOW, name="INT8"), "variant name 'INT8'"),
        (lambda: dataclasses.replace(LOW, name="fp32"), "variant name 'fp32'"),
        (lambda: dataclasses.replace(LOW, precision="fp32"), "is the model itself"),
        (lambda: dataclasses.replace(LOW, weight_bytes=-1), "weight_bytes is -1"),
        (lambda: dataclasses.replace(LOW, atol=float("inf")), "atol, rtol and relative_rms are"),
        (lambda: dataclasses.replace(LOW, metrics={"dice": float("nan")}), "dice is nan"),
        (lambda: dataclasses.replace(build_manifest(), variants=(LOW, LOW)), "a name or file occurs twice"),
        (
            lambda: dataclasses.replace(
                build_manifest(), frame_range=FrameRange(minimum=(1, 8, 8), optimum=(1, 8, 8), maximum=(1, 9, 8))
            ),
            "sides are no multiples of 8",
        ),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def bundle_with_variant(path: Path, manifest: Manifest | None = None) -> Path:
    manifest = manifest or dataclasses.replace(build_manifest(), variants=(LOW,))
    return write_bundle(path, model=build_model(), manifest=manifest, files={LOW.file: b"typed graph"})


def test_a_graph_is_asked_for_by_its_precision(tmp_path: Path) -> None:
    bundle = read_bundle(bundle_with_variant(tmp_path / "a.bundle"))
    assert bundle.graph() == bundle.graph("fp32") == bundle.model
    assert bundle.graph("int8") == b"typed graph"
    assert bundle.variant("int8") == LOW and bundle.variant("fp32") is None
    with pytest.raises(ConfigError, match="no precision 'fp16'; it has: fp32, int8") as raised:
        bundle.graph("fp16")
    assert "edgeslim quantize" in raised.value.hint


def test_a_variant_whose_file_is_not_there_is_refused(tmp_path: Path) -> None:
    path = bundle_with_variant(tmp_path / "a.bundle")
    (path / LOW.file).unlink()
    with pytest.raises(BundleError, match=LOW.file):
        read_bundle(path)
    path = write_bundle(tmp_path / "b.bundle", model=build_model(), manifest=build_manifest())
    text = (path / "manifest.json").read_text()
    listed = schema.dumps((LOW,)).strip()
    (path / "manifest.json").write_text(text.replace('"variants": []', f'"variants": {listed}'))
    with pytest.raises(BundleError, match=r"names model.int8.onnx but lists no hash"):
        read_bundle(path)


def test_an_output_may_be_off_in_places_but_not_as_a_whole() -> None:
    """Rounding moves single elements far; a net that is wrong throughout is off everywhere."""
    frames, expected = np.zeros((1, 8, 8, 3), np.uint8), np.ones((1, 2, 8, 8), np.float32)
    spec = GoldenSpec(atol=0.5, rtol=0.0, relative_rms=0.1)
    one = expected.copy()
    one[0, 0, 3, 4] += 0.4
    case = GoldenCase(inputs={"frame": frames}, outputs={"logits": expected})
    for answer, passes in ((one, True), (expected + 0.05, True), (expected + 0.2, False)):
        fake = FakeBackend(
            b"", inputs=build_manifest().inputs, outputs=build_manifest().outputs, answer=lambda _, a=answer: [a]
        )
        if passes:
            assert verify_cases((case,), spec, fake).cases == 1
        else:
            with pytest.raises(
                CertificateError, match=r"0\.2 of its own size away from what is expected, allowed is 0\.1"
            ):
                verify_cases((case,), spec, fake)
