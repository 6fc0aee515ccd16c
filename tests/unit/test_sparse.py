"""The sparse form of a model: bit for bit what it was, smaller, and refused when anything is wrong with it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgeslim.errors import BundleError, ExportError
from edgeslim.exporter.bundle import amend_bundle, write_bundle
from edgeslim.exporter.cost import count_weights
from edgeslim.exporter.passes.plain_zeros import plain_zeros
from edgeslim.exporter.sparse import Stretch, encode, sparse_form, sparse_stretches
from edgeslim.runtime import Manifest, load, parse_manifest, read_bundle
from edgeslim.runtime.sparse import restore

SPECIAL = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1e-45, 1.0], np.float64)
DTYPES = ["float16", "float32", "float64", "int8", "uint8", "bool", "int16", "int32", "int64", "uint16"]

dtypes = st.sampled_from(DTYPES).map(np.dtype)
shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=9)
arrays = dtypes.flatmap(lambda dtype: hnp.arrays(dtype, shapes, fill=st.just(dtype.type(0))))


def whole(data: bytes, word_bytes: int) -> list[Stretch]:
    return [Stretch(start=0, words=len(data) // word_bytes, word_bytes=word_bytes)] if data else []


@given(arrays)
def test_any_array_comes_back_bit_for_bit(array: NDArray[np.generic]) -> None:
    data = array.tobytes()
    assert restore(encode(data, whole(data, array.itemsize)), len(data), "here") == data


@given(hnp.arrays(np.uint64, st.integers(1, 40)), st.sampled_from([1, 2, 4, 8]))
def test_any_bits_are_words_of_any_size(array: NDArray[np.uint64], word_bytes: int) -> None:
    data = array.tobytes()
    assert restore(encode(data, whole(data, word_bytes)), len(data), "here") == data


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_signed_zeros_nan_and_denormals(dtype: str) -> None:
    payload = np.array([0x7FC00001, 0xFFC00001, 0x80000000, 1, 0x80000001], np.uint32).tobytes()
    with np.errstate(over="ignore", under="ignore"):
        data = SPECIAL.astype(dtype).tobytes() + payload + bytes(64)
    each = np.dtype(dtype).itemsize
    data += bytes(-len(data) % each)
    assert restore(encode(data, whole(data, each)), len(data), "here") == data


@given(st.lists(st.tuples(st.binary(max_size=9), arrays), max_size=4), st.binary(max_size=9))
def test_several_tensors_in_one_file(parts: list[tuple[bytes, NDArray[np.generic]]], rest: bytes) -> None:
    data, stretches = b"", []
    for skip, array in parts:
        data += skip
        stretches.append(Stretch(start=len(data), words=array.size, word_bytes=array.itemsize))
        data += array.tobytes()
    data += rest
    assert restore(encode(data, stretches), len(data), "here") == data


@pytest.mark.parametrize("density", [0.0, 0.001, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("words", [1, 7, 8, 9, 254, 255, 256, 257, 511, 20_000])
def test_every_density_and_both_forms(density: float, words: int) -> None:
    rng = np.random.default_rng(words)
    array = np.where(rng.random(words) < density, rng.normal(size=words), 0.0).astype(np.float32)
    data = array.tobytes()
    form = encode(data, whole(data, 4))
    assert restore(form, len(data), "here") == data
    if words == 20_000 and density <= 0.1:
        places = words * (-density * np.log2(density) - (1 - density) * np.log2(1 - density)) / 8 if density else 0
        assert len(form) < 1.1 * places + 4 * np.count_nonzero(array) + 200  # indices at most 10 % above their entropy


def model(density: float, width: int = 64, seed: int = 0) -> bytes:
    """uint8 frame (N, H, W, 3) -> 3x3 convolutions, many of whose weights are zero -> logits (N, 2, H, W)."""
    rng = np.random.default_rng(seed)
    kernels = [rng.normal(size=s).astype(np.float32) / 100 for s in ((width, 3, 3, 3), (2, width, 3, 3))]
    kernels = [np.where(rng.random(k.shape) < density, k, np.float32(0)) for k in kernels]
    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("Transpose", ["frame"], ["planes"], perm=[0, 3, 1, 2]),
            node("Cast", ["planes"], ["pixels"], to=onnx.TensorProto.FLOAT),
            node("Conv", ["pixels", "a"], ["h"], pads=[1, 1, 1, 1]),
            node("Relu", ["h"], ["r"]),
            node("Conv", ["r", "b"], ["logits"], pads=[1, 1, 1, 1]),
        ],
        "sparse",
        [onnx.helper.make_tensor_value_info("frame", onnx.TensorProto.UINT8, ["N", "H", "W", 3])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 2, "H", "W"])],
        [onnx.numpy_helper.from_array(k, n) for k, n in zip(kernels, "ab")],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def test_only_what_is_sparse_and_smaller() -> None:
    assert sparse_form(model(1.0)) is None
    assert sparse_form(model(0.9)) is None
    assert sparse_form(b"") is None and sparse_form(b"no model") is None
    untrained = onnx.load_model_from_string(model(1.0))
    untrained.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(64, np.float32), "bias"))
    assert sparse_form(untrained.SerializeToString()) is None
    plain = model(0.1)
    assert len(sparse_stretches(plain)) == 2
    form = sparse_form(plain)
    assert form is not None and len(form) < len(plain) / 5
    assert sparse_form(plain) == form
    assert restore(form, len(plain), "here") == plain


@pytest.mark.parametrize(("kind", "dtype"), [("FLOAT", np.float32), ("DOUBLE", np.float64)])
def test_floats_in_a_list_are_found(kind: str, dtype: type[np.floating[Any]]) -> None:
    """Some tools write numbers into the list of their type instead of raw bytes."""
    array = np.where(np.arange(600) % 7, 0, np.arange(600)).astype(dtype)
    proto = onnx.load_model_from_string(model(1.0))
    number = getattr(onnx.TensorProto, kind)
    proto.graph.initializer.append(onnx.helper.make_tensor("w", number, (20, 30), array))
    assert not proto.graph.initializer[-1].raw_data
    data = proto.SerializeToString()
    (stretch,) = sparse_stretches(data)
    assert data[stretch.start : stretch.start + array.nbytes] == array.tobytes()
    assert (stretch.words, stretch.word_bytes) == (600, array.itemsize)
    assert restore(encode(data, [stretch]), len(data), "here") == data


def write(path: Path, build: Callable[..., Manifest], density: float = 0.1, **more: bool) -> tuple[Path, bytes]:
    plain = model(density)
    return write_bundle(path, model=plain, manifest=build(2), files={"notes.txt": b"fine"}, **more), plain


@pytest.mark.parametrize("archive", [False, True])
def test_a_bundle_on_disk_answers_as_before(
    tmp_path: Path, tiny_manifest: Callable[..., Manifest], archive: bool
) -> None:
    sparse, plain = write(tmp_path / "sparse", tiny_manifest, archive=archive)
    dense, _ = write(tmp_path / "dense", tiny_manifest, sparse=False, archive=archive)
    bundle, other = read_bundle(sparse), read_bundle(dense)
    assert bundle.model == other.model == plain
    assert sorted(bundle.files) == sorted(other.files) == ["model.onnx", "notes.txt"]
    assert sorted(bundle.manifest.files) == ["model.sparse", "notes.txt"]
    assert bundle.manifest.model_entry == other.manifest.model_entry == other.manifest.files["model.onnx"]
    assert bundle.manifest.files["model.sparse"].bytes < len(plain) / 5
    frames = np.random.default_rng(1).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    with load(sparse) as a, load(dense) as b:
        seen, wanted = a.run_batch(frames), b.run_batch(frames)
    assert seen.keys() == wanted.keys()
    assert all(seen[name].tobytes() == wanted[name].tobytes() for name in wanted)


def test_amending_keeps_the_form(tmp_path: Path, tiny_manifest: Callable[..., Manifest]) -> None:
    for name, keep in (("sparse", True), ("dense", False)):
        path, plain = write(tmp_path / name, tiny_manifest, sparse=keep)
        before = read_bundle(path).manifest
        amend_bundle(path, metrics={"dice": 0.5}, files={"more.txt": b"more"})
        after = read_bundle(path)
        assert after.model == plain and after.manifest.sparse == before.sparse
        assert (after.manifest.sparse is not None) == keep
        assert sorted(after.files) == ["model.onnx", "more.txt", "notes.txt"]


def test_a_dense_net_is_stored_as_it_is(tmp_path: Path, tiny_manifest: Callable[..., Manifest]) -> None:
    path, plain = write(tmp_path / "net", tiny_manifest, density=1.0)
    assert read_bundle(path).manifest.sparse is None
    assert (path / "model.onnx").read_bytes() == plain


def test_the_name_of_the_form_is_taken(tmp_path: Path, tiny_manifest: Callable[..., Manifest]) -> None:
    with pytest.raises(ExportError, match=r"model\.sparse is written here"):
        write_bundle(tmp_path / "net", model=b"", manifest=tiny_manifest(), files={"model.sparse": b""})


def rehashed(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the form and let the manifest's hash of the file agree, as a forger would."""
    data = change((path / "model.sparse").read_bytes())
    (path / "model.sparse").write_bytes(data)
    table = json.loads((path / "manifest.json").read_text())
    table["files"]["model.sparse"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (path / "manifest.json").write_text(json.dumps(table))


def refused(path: Path, said: str) -> None:
    with pytest.raises(BundleError, match=said) as caught:
        read_bundle(path)
    assert str(path) in caught.value.message and caught.value.hint


def test_a_flipped_byte(tmp_path: Path, tiny_manifest: Callable[..., Manifest]) -> None:
    path, _ = write(tmp_path / "net", tiny_manifest)
    data = bytearray((path / "model.sparse").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "model.sparse").write_bytes(data)
    refused(path, r"model\.sparse has SHA-256")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: b"", "does not begin as one"),
        (lambda d: b"X" + d[1:], "does not begin as one"),
        (lambda d: d[:8], "it ends early"),
        (lambda d: d[:-1], "a stream claims"),
        (lambda d: d + b"x", "1 bytes follow its end"),
        (lambda d: d[:8] + (2**60).to_bytes(8, "little") + d[16:], "a stream claims"),
        (lambda d: d[:24] + b"\xff" + d[25:], "is no sparse form of a model"),
    ],
)
def test_a_forged_form(
    tmp_path: Path, tiny_manifest: Callable[..., Manifest], change: Callable[[bytes], bytes], said: str
) -> None:
    path, _ = write(tmp_path / "net", tiny_manifest)
    rehashed(path, change)
    refused(path, said)


def test_the_form_of_another_model(tmp_path: Path, tiny_manifest: Callable[..., Manifest]) -> None:
    path, plain = write(tmp_path / "net", tiny_manifest)
    changed = bytearray(plain)
    changed[plain.index(b"logits")] ^= 1
    rehashed(path, lambda d: encode(bytes(changed), sparse_stretches(plain)))
    refused(path, "restores a model with SHA-256")
    rehashed(path, lambda d: encode(plain + b"x", sparse_stretches(plain)))
    refused(path, "do not make")


@given(st.data())
def test_a_flipped_bit_is_an_error_or_harmless(data: st.DataObject) -> None:
    plain = model(0.1, width=8)
    form = bytearray(encode(plain, sparse_stretches(plain)))
    place = data.draw(st.integers(0, len(form) - 1))
    form[place] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(BundleError):
        assert len(restore(bytes(form), len(plain), "here")) == len(plain)


@given(st.binary(max_size=200), st.integers(-1, 2**40))
def test_bytes_that_are_no_form(data: bytes, size: int) -> None:
    for content in (data, b"EDGESPS1" + data):
        with pytest.raises(BundleError):
            restore(content, size, "here")


def packed(*streams: bytes) -> bytes:
    parts = [b"EDGESPS1"]
    for raw in streams:
        deflated = zlib.compress(raw)
        parts += [len(raw).to_bytes(8, "little"), len(deflated).to_bytes(8, "little"), deflated]
    return b"".join(parts)


def row(*numbers: int) -> bytes:
    return np.array(numbers, "<u8").tobytes()


@pytest.mark.parametrize(
    ("streams", "said"),
    [
        ((row(0, 4, 1, 0), b"", b"", b""), "its table is not whole"),
        ((row(0, 4, 3, 0, 1), b"", b"\x01", b"a"), "region 0 of its table is impossible"),
        ((row(0, 4, 1, 2, 1), b"", b"\x01", b"a"), "region 0 of its table is impossible"),
        ((row(0, 4, 1, 0, 5), b"", b"\x01", b"a"), "region 0 of its table is impossible"),
        ((row(0, 2**63, 8, 0, 1), b"", b"\x01", b"a"), "region 0 of its table is impossible"),
        ((row(0, 4, 1, 0, 1), b"x", b"\x01", b"a"), "do not make 4 bytes"),
        ((row(0, 4, 1, 0, 1), b"", b"\x01", b"ab"), "words of no region"),
        ((row(0, 4, 1, 0, 1), b"", b"\x03", b"a"), "bits of a region do not fit"),
        ((row(0, 4, 1, 0, 1), b"", b"\x10", b"a"), "bits of a region do not fit"),
        ((row(0, 4, 1, 0, 1), b"", b"", b"a"), "bits of a region do not fit"),
        ((row(0, 4, 1, 0, 1), b"", b"\x01\x00", b"a"), "places of no region"),
        ((row(0, 4, 1, 1, 1), b"", b"\x04", b"a"), "gaps of a region do not fit"),
        ((row(0, 4, 1, 1, 1), b"", b"\xff", b"a"), "gaps of a region end early"),
        ((row(0, 4, 1, 1, 1), b"", b"", b"a"), "gaps of a region end early"),
    ],
)
def test_streams_that_do_not_fit_together(streams: tuple[bytes, ...], said: str) -> None:
    assert restore(packed(row(0, 4, 1, 1, 1), b"", b"\x02", b"a"), 4, "here") == b"\0\0a\0"
    with pytest.raises(BundleError, match=said):
        restore(packed(*streams), 4, "here")


def test_a_claim_takes_no_more_memory_than_there_is() -> None:
    bomb = packed(row(), bytes(50_000_000), b"", b"")
    with pytest.raises(BundleError, match="a stream claims"):
        restore(bomb, 1000, "here")


def test_a_manifest_of_schema_1_is_still_read() -> None:
    text = (Path(__file__).parents[1] / "golden" / "manifest-schema-1.json").read_bytes()
    manifest = parse_manifest(text, "old")
    assert (manifest.schema, manifest.sparse, manifest.stored_model) == (1, None, "model.onnx")
    assert manifest.model_entry == manifest.files["model.onnx"]
    assert manifest.sizes.compression is None


def test_a_bundle_of_schema_1_runs(bundle_copy: Path) -> None:
    table = json.loads((bundle_copy / "manifest.json").read_text())
    table["schema"] = 1
    del table["sparse"]
    for name in ("dense_weights", "weights", "nonzero_weights"):
        del table["sizes"][name]
    (bundle_copy / "manifest.json").write_text(json.dumps(table))
    with load(bundle_copy) as session:
        session.verify_golden()


def test_every_zero_of_a_kernel_is_the_same_zero() -> None:
    """-0.0 has a bit that is not zero; biases, and other values than zero, are not touched."""
    kernel = np.array([[[[0.0]], [[-0.0]], [[-1e-45]], [[1.5]]]], np.float32)
    text = """<ir_version: 10, opset_import: ["" : 18]>
    net (float[n, 4, h, w] x) => (float[n, 1, h, w] y) { y = Conv (x, k, b) }"""
    graph = ir.from_onnx_text(text)
    for name, array in (("k", kernel), ("b", np.array([-0.0], np.float32))):
        graph.graph.register_initializer(ir.val(name, const_value=ir.tensor(array, name=name)))
    node = graph.graph.node(0)
    for index, name in ((1, "k"), (2, "b")):
        node.replace_input_with(index, graph.graph.initializers[name])
    plain = plain_zeros(graph)
    seen = {name: value.const_value.numpy() for name, value in plain.graph.initializers.items() if value.const_value}
    assert seen["k"].view(np.uint32).ravel().tolist() == [0, 0, 0x80000001, 0x3FC00000]
    assert np.signbit(seen["b"]).all()
    held = graph.graph.initializers["k"].const_value
    assert held is not None and held.numpy().tobytes() == kernel.tobytes()
    assert count_weights(graph) == count_weights(plain) == (4, 2)
