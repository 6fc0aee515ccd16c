"""Tensors of a file that nobody vouches for: as long as they claim to be, and from no file but the model's own.

What a tensor claims (its dims) is checked against the bytes that are there before anybody allocates them. External
data is read from the folder of the model file only: absolute paths, `..` and symbolic links that lead out are refused.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import onnx

from edgeslim.errors import UnsupportedGraphError

LARGEST_BYTES = (1 << 31) - 1
"""What a protobuf message can hold; a model with more weights cannot be handed to ONNX Runtime as one."""

_BITS: dict[int, int] = {
    onnx.TensorProto.FLOAT: 32, onnx.TensorProto.DOUBLE: 64, onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.BFLOAT16: 16, onnx.TensorProto.INT8: 8, onnx.TensorProto.INT16: 16, onnx.TensorProto.INT32: 32,
    onnx.TensorProto.INT64: 64, onnx.TensorProto.UINT8: 8, onnx.TensorProto.UINT16: 16, onnx.TensorProto.UINT32: 32,
    onnx.TensorProto.UINT64: 64, onnx.TensorProto.BOOL: 8, onnx.TensorProto.COMPLEX64: 64,
    onnx.TensorProto.COMPLEX128: 128, onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.FLOAT8E4M3FN: 8, onnx.TensorProto.FLOAT8E4M3FNUZ: 8, onnx.TensorProto.FLOAT8E5M2: 8,
    onnx.TensorProto.FLOAT8E5M2FNUZ: 8,
}  # fmt: skip
_AGAIN = "the file is damaged or was not written by an ONNX exporter: download or export it again"


def check_and_load(model: onnx.ModelProto, path: Path) -> None:
    """Check every tensor of `model` and put its external data inside. Raises UnsupportedGraphError."""
    total = 0
    for tensor in _tensors(model.graph):
        what = f"{path}: tensor {tensor.name or '(without a name)'}"
        elements, size = _claim(tensor, what)
        total += size
        if total > LARGEST_BYTES:
            raise UnsupportedGraphError(
                f"{what} brings the weights to {total:,} bytes; at most {LARGEST_BYTES:,} fit into one model",
                "models of 2 GB and more are not supported",
            )
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.raw_data = _external(tensor, size, path, what)
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
        else:
            _check_content(tensor, elements, size, what)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor: initializers and attributes, in sub-graphs too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _attribute_tensors(node.attribute)


def _attribute_tensors(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from _tensors(graph)


def _claim(tensor: onnx.TensorProto, what: str) -> tuple[int, int]:
    """(elements, bytes) that the dims promise; 0 bytes for strings."""
    if any(d < 0 for d in tensor.dims):
        raise UnsupportedGraphError(f"{what} has the shape {list(tensor.dims)}", _AGAIN)
    elements = math.prod(tensor.dims)
    if tensor.data_type == onnx.TensorProto.STRING:
        return elements, 0
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        raise UnsupportedGraphError(f"{what} has the unknown type {tensor.data_type}", _AGAIN)
    return elements, -(-elements * bits // 8)


def _check_content(tensor: onnx.TensorProto, elements: int, size: int, what: str) -> None:
    """The data inside the file is as long as the dims say."""
    if tensor.HasField("raw_data"):
        seen, wanted, unit = len(tensor.raw_data), size, "bytes"
    else:
        fields = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
        seen, wanted, unit = sum(len(getattr(tensor, f)) for f in fields), elements, "numbers"
        if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
            wanted *= 2
        elif _BITS.get(tensor.data_type) == 4:
            wanted = -(-elements // 2)
    if seen != wanted:
        raise UnsupportedGraphError(
            f"{what} of shape {list(tensor.dims)} needs {wanted:,} {unit}, the file has {seen:,}", _AGAIN
        )


def _external(tensor: onnx.TensorProto, size: int, path: Path, what: str) -> bytes:
    """The bytes of a tensor whose data lies in another file of the same folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = _inside(path.parent, location, what)
    offset, length = (_number(entries.get(key), default, what) for key, default in (("offset", 0), ("length", size)))
    if length != size:
        raise UnsupportedGraphError(
            f"{what} of shape {list(tensor.dims)} needs {size:,} bytes, {location} is said to give {length:,}", _AGAIN
        )
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise UnsupportedGraphError(
            f"{what} lies in {location}, which cannot be read: {error.strerror}",
            "put the data file beside the model file, under the name it had when it was exported",
        ) from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise UnsupportedGraphError(f"{what} lies in {location}, which is not a regular file", _AGAIN)
    with open(handle, "rb") as opened:
        if offset + size > found.st_size:
            raise UnsupportedGraphError(
                f"{what} ends at byte {offset + size:,} of {location}, which has {found.st_size:,}", _AGAIN
            )
        opened.seek(offset)
        return opened.read(size)


def _inside(folder: Path, location: str, what: str) -> Path:
    """The real path of external data, which must not leave the model's folder."""
    parts = PurePosixPath(location)
    inside = bool(location) and not parts.is_absolute() and ".." not in parts.parts and "\0" not in location
    file = Path(os.path.realpath(folder / location)) if inside else folder
    if not inside or not file.is_relative_to(os.path.realpath(folder)):
        raise UnsupportedGraphError(
            f"{what} points to {location!r}, outside of the model's folder", "put the data file beside the model file"
        )
    return file


def _number(text: str | None, default: int, what: str) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise UnsupportedGraphError(f"{what}: external data at {text!r}, which is no position in a file", _AGAIN)
    return int(text)
