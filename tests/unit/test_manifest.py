"""The manifest: a round trip loses nothing, its text is stable to the byte, and each planted fault is refused.

After a wanted change of the format, renew the golden text and review the diff:
    EDGESLIM_REGENERATE=1 .venv/bin/pytest tests/unit/test_manifest.py
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim import schema
from edgeslim.errors import BundleError
from edgeslim.runtime import (
    SCHEMA,
    Certificate,
    FileEntry,
    GoldenSpec,
    ImageSpec,
    LayerCoverage,
    Manifest,
    Sizes,
    Stage,
    TensorSpec,
    parse_manifest,
)
from edgeslim.runtime.manifest import DTYPES, is_file_name

GOLDEN = Path(__file__).parents[1] / "golden" / "manifest.json"

finite = st.floats(0, 1e6)
texts = st.text(max_size=8)
file_names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,6}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,6}){0,2}", fullmatch=True)
triples = st.tuples(finite, finite, finite)
stages = st.builds(
    Stage,
    name=texts,
    reference=texts,
    inputs=texts,
    max_abs=finite,
    max_rel=finite,
    atol=finite,
    rtol=finite,
    passed=st.booleans(),
)
tensors = (
    st.lists(st.integers(0, 9) | texts, max_size=4)
    .map(tuple)
    .flatmap(
        lambda shape: st.builds(
            TensorSpec,
            name=texts,
            dtype=st.sampled_from(sorted(DTYPES)),
            shape=st.just(shape),
            layout=st.sampled_from(("", "NHWC"[: len(shape)])),
        )
    )
)
tensor_tuples = st.lists(tensors, min_size=1, max_size=2, unique_by=lambda spec: spec.name).map(tuple)
manifests = st.builds(
    Manifest,
    written_by=texts,
    name=texts,
    model=file_names,
    golden=st.none() | st.builds(GoldenSpec, file=file_names, atol=finite, rtol=finite),
    inputs=tensor_tuples,
    outputs=tensor_tuples,
    image=st.builds(
        ImageSpec,
        mean=triples,
        std=st.tuples(*[st.floats(1e-3, 10)] * 3),
        embedded=st.booleans(),
        size_multiple=st.just(4),
    ),
    bench_size=st.tuples(st.integers(1, 99), st.integers(1, 99)).map(lambda size: (size[0] * 4, size[1] * 4)),
    classes=st.lists(texts, max_size=3).map(tuple),
    metrics=st.dictionaries(texts, finite, max_size=2),
    sizes=st.builds(Sizes, parameters=st.integers(0), weight_bytes=st.none() | st.integers(0)),
    provenance=st.dictionaries(texts, texts, max_size=2),
    certificate=st.builds(Certificate, stages=st.lists(stages, max_size=2).map(tuple)),
    coverage=st.lists(
        st.builds(
            LayerCoverage,
            layer=texts,
            operator=texts,
            width_before=st.integers(0),
            width_after=st.integers(0),
            family=st.none() | texts,
            reason=st.none() | texts,
        ),
        max_size=2,
    ).map(tuple),
    files=st.dictionaries(file_names, st.builds(FileEntry, sha256=st.just("a" * 64), bytes=st.integers(0)), max_size=2),
)


@given(manifests)
def test_round_trip_keeps_everything(manifest: Manifest) -> None:
    text = schema.dumps(manifest)
    assert parse_manifest(text.encode(), "here") == manifest
    assert schema.dumps(parse_manifest(text.encode(), "here")) == text


def test_text_is_the_golden_one(tiny_manifest: Callable[..., Manifest]) -> None:
    manifest = dataclasses.replace(
        tiny_manifest(2, GoldenSpec(atol=1e-5, rtol=1e-4)),
        written_by="0.1.0",
        files={"model.onnx": FileEntry(sha256="0" * 64, bytes=3), "golden.npz": FileEntry(sha256="1" * 64, bytes=4)},
    )
    text = schema.dumps(manifest)
    if os.environ.get("EDGESLIM_REGENERATE"):
        GOLDEN.write_text(text)
    assert text.encode() == GOLDEN.read_bytes()
    assert parse_manifest(GOLDEN.read_bytes(), "golden") == manifest


def changed(manifest: Manifest, *path: str | int, value: object) -> bytes:
    """The manifest's text with one value replaced."""
    table: Any = schema.to_json(manifest)
    place = table
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(table).encode()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("surprise",), 1, r"\$\.surprise: unknown key"),
        (("name",), 3, r"\$\.name: int where str"),
        (("model",), "../model.onnx", "'../model.onnx' is not a plain relative path"),
        (("model",), "manifest.json", "'manifest.json' is not a plain"),
        (("inputs",), [], "at least one input"),
        (("inputs", 0, "dtype"), "uint9", "dtype 'uint9'"),
        (("inputs", 0, "layout"), "NHW", "layout 'NHW' for 4 axes"),
        (("inputs", 0, "shape"), ["N", -1, 2, 3], "negative size"),
        (("inputs", 0, "shape"), [True, 2, 2, 3], r"shape\[0\]: bool"),
        (("image", "colour"), "BGR", "'BGR' is not one of 'RGB'"),
        (("image", "std"), [0.0, 1.0, 1.0], "above 0"),
        (("image", "size_multiple"), 0, "at least 1"),
        (("bench_size",), [16, 25], "positive multiple of 8"),
        (("metrics", "dice"), float("nan"), "metrics: dice is nan"),
        (("sizes", "macs"), None, "macs_shape belong together"),
        (("sizes", "parameters"), -1, "at least 0"),
        (("certificate", "stages", 0, "max_abs"), None, "not finite"),
        (("certificate", "stages", 0, "atol"), -1.0, "at least 0"),
        (("golden",), {"file": "golden.npz", "atol": -1.0, "rtol": 0.0}, "at least 0"),
        (("files",), {"/etc/passwd": {"sha256": "0" * 64, "bytes": 1}}, "'/etc/passwd' is not a plain"),
        (("files",), {"a": {"sha256": "xyz", "bytes": 1}}, "64 lower-case"),
        (("files",), {"a": {"sha256": "0" * 64, "bytes": -1}}, "at least 0"),
    ],
)
def test_a_value_out_of_place_is_refused(
    tiny_manifest: Callable[..., Manifest], path: tuple[str | int, ...], value: object, said: str
) -> None:
    with pytest.raises(BundleError, match=said) as caught:
        parse_manifest(changed(tiny_manifest(), *path, value=value), "net.bundle")
    assert "net.bundle: manifest.json" in caught.value.message
    assert caught.value.hint


def test_names_must_be_unique(tiny_manifest: Callable[..., Manifest]) -> None:
    twice = schema.to_json(tiny_manifest().outputs + tiny_manifest().outputs)
    with pytest.raises(BundleError, match="a name occurs twice"):
        parse_manifest(changed(tiny_manifest(), "outputs", value=twice), "here")


def test_schema_1_is_read_as_ever(tiny_manifest: Callable[..., Manifest]) -> None:
    """It knew no task, and no images but RGB ones."""
    old = parse_manifest((GOLDEN.parent / "manifest-schema-1.json").read_bytes(), "golden")
    new = parse_manifest(GOLDEN.read_bytes(), "golden")
    assert (old.schema, old.task, old.image.colour) == (1, None, "RGB")
    assert dataclasses.replace(old, schema=SCHEMA) == new


def test_schema_2_is_read_as_ever() -> None:
    """It knew no other precisions, and no range of frames."""
    old = parse_manifest((GOLDEN.parent / "manifest-schema-2.json").read_bytes(), "golden")
    assert (old.schema, old.variants, old.frame_range) == (2, (), None)
    assert dataclasses.replace(old, schema=SCHEMA) == parse_manifest(GOLDEN.read_bytes(), "golden")


def test_grey_images_and_a_task(tiny_manifest: Callable[..., Manifest]) -> None:
    grey = ImageSpec(colour="grey", mean=(0.5,), std=(0.25,), size_multiple=8)
    assert grey.channels == 1
    manifest = dataclasses.replace(tiny_manifest(), image=grey, task="segmentation")
    assert parse_manifest(schema.dumps(manifest).encode(), "here") == manifest
    with pytest.raises(ValueError, match="1 means and 1 stds for 3 channels"):
        ImageSpec(mean=(0.5,), std=(0.25,))
    with pytest.raises(ValueError, match="3 means and 3 stds for 1 channels"):
        dataclasses.replace(tiny_manifest().image, colour="grey")
    with pytest.raises(ValueError, match="task classification has an output of 2 axes"):
        dataclasses.replace(tiny_manifest(), task="classification")


def test_a_newer_schema_names_the_version_that_reads_it() -> None:
    future = {"schema": SCHEMA + 1, "written_by": "9.8.7", "unknown": {"entirely": "new"}}
    with pytest.raises(
        BundleError, match=rf"schema {SCHEMA + 1}, written by edgeslim 9\.8\.7; this edgeslim reads up to"
    ) as caught:
        parse_manifest(json.dumps(future).encode(), "here")
    assert "pip install 'edgeslim>=9.8.7'" in caught.value.hint


@pytest.mark.parametrize("written_by", [None, 3, "", "1.0; rm -rf /", "\x1b[31m", "1" * 100])
def test_a_newer_schema_repeats_nothing_strange(written_by: object) -> None:
    with pytest.raises(BundleError, match="written by a newer edgeslim;") as caught:
        parse_manifest(json.dumps({"schema": SCHEMA + 1, "written_by": written_by}).encode(), "here")
    assert "pip install --upgrade edgeslim" in caught.value.hint


@pytest.mark.parametrize("schema_value", ["true", '"1"', "0", "-1", "1.5", "null", "[]", '"' + "9" * 500 + '"'])
def test_a_schema_that_is_no_number_is_refused(schema_value: str) -> None:
    with pytest.raises(BundleError, match="a bundle's manifest has a number from 1"):
        parse_manifest(f'{{"schema": {schema_value}}}'.encode(), "here")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"9" * 10_000, b'{"schema": 1, "metrics": {"a": 1e999}}'],
    ids=["empty", "open", "not UTF-8", "deep", "long number", "infinite"],
)
def test_text_that_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse_manifest(data, "here")


def test_a_number_too_large_for_a_float_is_refused(tiny_manifest: Callable[..., Manifest]) -> None:
    with pytest.raises(BundleError):
        parse_manifest(changed(tiny_manifest(), "metrics", "dice", value=10**400), "here")


@pytest.mark.parametrize("name", ["a", "model.onnx", "engines/sm_87+fp16.plan", "a/b/c-1"])
def test_plain_file_names(name: str) -> None:
    assert is_file_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/a", "a/", "a//b", "a/../b", "./a", "a/.b", "a\\b", "C:a", "a\nb", "a\0b", "~/a", "ä", "a" * 256],
)
def test_file_names_with_tricks(name: str) -> None:
    assert not is_file_name(name)


def test_an_empty_certificate_has_not_passed() -> None:
    assert not Certificate(stages=()).passed
