"""Store a model without its zeros; the format is that of `edgeslim.runtime.sparse`, which reads it.

A tensor is worth a region where at least a quarter of its words is zero: with fewer, bits or gaps cost about what
they save. The file is searched for the tensors' bytes and cut there. Any place with the same bytes does, since it is
bytes that come back.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeslim.errors import InvariantError
from edgeslim.runtime.sparse import BITS, GAPS, LARGEST, MAGIC, WORD_BYTES, Region, restore

DENSEST = 0.75
"""Largest share of words that are not zero of a tensor that is worth a region."""
SMALLEST = 64
"""Bytes below which a tensor costs more in the table than it saves."""
WORTHWHILE = 0.9
"""Largest size, as a share of the model's, of a form that is used: a tenth is what deflate finds in any model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """`words` words of `word_bytes` bytes each, from byte `start` of a file."""

    start: int
    words: int
    word_bytes: int


def sparse_form(model: bytes) -> bytes | None:
    """The sparse form of an ONNX file, None where it would not be smaller by a tenth at least.

    Raises InvariantError if it does not come back bit for bit.
    """
    stretches = sparse_stretches(model)
    if not stretches or len(model) > LARGEST:
        return None
    form = encode(model, stretches)
    if restore(form, len(model), "what was just written") != model:
        raise InvariantError("a sparse form does not restore its model")
    return form if len(form) <= WORTHWHILE * len(model) else None


def sparse_stretches(model: bytes) -> list[Stretch]:
    """Where in an ONNX file the tensors lie that are worth a region; none for what is no ONNX file."""
    try:
        graph = onnx.load_model_from_string(model).graph
    except Exception:  # protobuf raises its own exception type
        return []
    found, end = [], 0
    for tensor in graph.initializer:
        # Floats in a list of their own, as some tools write them, are the same bytes in the file.
        floats = np.array(tensor.float_data, "<f4").tobytes() or np.array(tensor.double_data, "<f8").tobytes()
        raw, elements = tensor.raw_data or floats, int(np.prod(tensor.dims, dtype=np.int64))
        if len(raw) < SMALLEST or not elements or len(raw) // elements not in WORD_BYTES or len(raw) % elements:
            continue
        words = np.frombuffer(raw, np.uint8).reshape(elements, -1)
        start = model.find(raw, end)
        if start >= 0 and np.count_nonzero(words.any(axis=1)) <= DENSEST * elements:
            found.append(Stretch(start=start, words=elements, word_bytes=words.shape[1]))
            end = start + len(raw)
    return found


def encode(data: bytes, stretches: Sequence[Stretch]) -> bytes:
    """The sparse form of any bytes. stretches: ascending, apart from each other, inside of `data`."""
    regions, between, where = [], [], []
    what: dict[int, list[NDArray[np.uint8]]] = {each: [] for each in WORD_BYTES}
    end = 0
    for stretch in stretches:
        stop = stretch.start + stretch.words * stretch.word_bytes
        words = np.frombuffer(data[stretch.start : stop], np.uint8).reshape(stretch.words, stretch.word_bytes)
        places = np.flatnonzero(words.any(axis=1))
        form, coded = _coded(places, stretch.words)
        regions.append(
            Region(
                skip=stretch.start - end,
                words=stretch.words,
                word_bytes=stretch.word_bytes,
                form=form,
                nonzero=len(places),
            )
        )
        between.append(data[end : stretch.start])
        where.append(coded)
        what[stretch.word_bytes].append(words[places])
        end = stop
    between.append(data[end:])
    table = np.array([[r.skip, r.words, r.word_bytes, r.form, r.nonzero] for r in regions], "<u8").reshape(-1, 5)
    planes = [np.concatenate(words).T.tobytes() for words in what.values() if words]
    streams = (table.T.tobytes(), b"".join(between), b"".join(where), b"".join(planes))
    return MAGIC + b"".join(_stored(stream) for stream in streams)


def _coded(places: NDArray[np.int64], words: int) -> tuple[int, bytes]:
    """The places of the words that are not zero, as bits or as gaps, whichever is smaller in the end."""
    flags = np.zeros(words, np.bool_)
    flags[places] = True
    bits = np.packbits(flags, bitorder="little").tobytes()
    skips, rest = np.divmod(np.diff(places, prepend=-1) - 1, 255)
    coded = np.full(int(skips.sum()) + len(places), 255, np.uint8)
    coded[np.cumsum(skips + 1) - 1] = rest
    gaps = coded.tobytes()
    return (BITS, bits) if len(_deflated(bits)) <= len(_deflated(gaps)) else (GAPS, gaps)


def _stored(raw: bytes) -> bytes:
    deflated = _deflated(raw)
    return struct.pack("<QQ", len(raw), len(deflated)) + deflated


def _deflated(raw: bytes) -> bytes:
    """Deflated with and without a search for repetitions, which finds false ones in mantissas and gaps."""
    forms = []
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY):
        machine = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)  # 9: a fifth of the speed, 0.3 % less
        forms.append(machine.compress(raw) + machine.flush())
    return min(forms, key=len)
