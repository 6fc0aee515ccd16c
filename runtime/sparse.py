"""The sparse form of a model file: zeros are not stored, and the file comes back bit for bit.

It knows nothing of ONNX. A *region* is a stretch of the file that holds one tensor, seen as words of 1, 2, 4 or 8
bytes; what lies between the regions is kept as it is. A word is zero if all its bits are: -0.0 and NaN are values like
any other, so nothing is lost and no type needs to be known.

    file    = MAGIC, then the four streams, each as <raw bytes: 8> <stored bytes: 8> <deflated bytes>
    table   = one column after the other, 8 bytes a number, a row a region:
              skip (bytes since the region before), words, word bytes, form, words that are not zero
    between = all bytes outside the regions
    where   = per region the places of its words that are not zero:
              form 0, one bit a word, the first in the lowest bit; form 1, one byte a gap (the zeros before a value),
              255 = 255 more zeros and no value yet
    what    = the words that are not zero; for every word size, byte 0 of all words, then byte 1, ...

All numbers are little-endian and unsigned. Like bytes lie together (signs and exponents of floats are alike), so
deflate finds what there is. Gaps take less than bits where few words are left; the writer takes the smaller.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import BundleError

MAGIC = b"EDGESPS1"
BITS, GAPS = 0, 1
WORD_BYTES = (1, 2, 4, 8)
LARGEST = 2**31 - 1
"""Bytes of a model; protobuf, ONNX's format, has no larger file."""

_COLUMNS = 5
_ESCAPE = 255

Bytes = NDArray[np.uint8]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One tensor in the file. skip: bytes between it and the region before. nonzero: words of it that are not zero."""

    skip: int
    words: int
    word_bytes: int
    form: int
    nonzero: int


def restore(data: bytes, size: int, where: str) -> bytes:
    """The model of `size` bytes that was stored as `data`; `where` names it in errors.

    Raises BundleError for anything but exactly such a file. No more memory is taken than `size` allows.
    """
    if not 0 <= size <= LARGEST:
        raise _damaged(where, f"it claims a model of {size} bytes")
    if data[: len(MAGIC)] != MAGIC:
        raise _damaged(where, "it does not begin as one")
    try:
        table, place = _inflate(data, len(MAGIC), size, where)
        regions = _regions(table, size, where)
        between, place = _inflate(data, place, size, where)
        positions, place = _inflate(data, place, size, where)
        values, place = _inflate(data, place, size, where)
        if place != len(data):
            raise _damaged(where, f"{len(data) - place} bytes follow its end")
        return _joined(regions, between, positions, values, size, where)
    except MemoryError as error:
        raise BundleError(f"{where} does not fit into memory ({size} bytes)", "use a device with more") from error


def _inflate(data: bytes, place: int, size: int, where: str) -> tuple[Bytes, int]:
    """The stream at `place`, and where the next one begins."""
    head = data[place : place + 16]
    if len(head) < 16:
        raise _damaged(where, "it ends early")
    raw, stored = struct.unpack("<QQ", head)
    place += 16
    # A table has 40 bytes a region, and a region at least one word; the other streams are parts of the model.
    if raw > 40 * (size + 1) or stored > len(data) - place:
        raise _damaged(where, f"a stream claims {raw} bytes from {stored}")
    machine = zlib.decompressobj()
    try:
        content = machine.decompress(data[place : place + stored], raw + 1)
    except zlib.error as error:
        raise _damaged(where, str(error)) from error
    if len(content) != raw or not machine.eof or machine.unused_data:
        raise _damaged(where, f"a stream does not hold the {raw} bytes it claims")
    return np.frombuffer(content, np.uint8), place + stored


def _regions(table: Bytes, size: int, where: str) -> list[Region]:
    if len(table) % (8 * _COLUMNS):
        raise _damaged(where, "its table is not whole")
    rows = table.view("<u8").reshape(_COLUMNS, -1).T.tolist()
    regions: list[Region] = []
    end = 0
    for skip, words, word_bytes, form, nonzero in rows:
        fits = word_bytes in WORD_BYTES and form in (BITS, GAPS) and words > 0 and nonzero <= words
        end += skip + words * word_bytes
        if not fits or end > size:
            raise _damaged(where, f"region {len(regions)} of its table is impossible")
        regions.append(Region(skip=skip, words=words, word_bytes=word_bytes, form=form, nonzero=nonzero))
    return regions


def _joined(regions: list[Region], between: Bytes, positions: Bytes, values: Bytes, size: int, where: str) -> bytes:
    if len(between) + sum(r.words * r.word_bytes for r in regions) != size:
        raise _damaged(where, f"its parts do not make {size} bytes")
    words = _words(regions, values, where)
    model = np.empty(size, np.uint8)
    taken = copied = end = 0
    for region in regions:
        model[end : end + region.skip] = between[copied : copied + region.skip]
        copied, end = copied + region.skip, end + region.skip
        read = _from_bits if region.form == BITS else _from_gaps
        places, taken = read(region, positions, taken, where)
        dense = np.zeros((region.words, region.word_bytes), np.uint8)
        dense[places] = words[region.word_bytes][: region.nonzero]
        words[region.word_bytes] = words[region.word_bytes][region.nonzero :]
        stretch = region.words * region.word_bytes
        model[end : end + stretch] = dense.ravel()
        end += stretch
    if taken != len(positions):
        raise _damaged(where, "it has places of no region")
    model[end:] = between[copied:]
    return model.tobytes()


def _words(regions: list[Region], values: Bytes, where: str) -> dict[int, Bytes]:
    """Word bytes -> (words, word bytes) uint8, all words of that size that are not zero."""
    counts = {each: sum(r.nonzero for r in regions if r.word_bytes == each) for each in WORD_BYTES}
    if sum(each * count for each, count in counts.items()) != len(values):
        raise _damaged(where, "it has words of no region")
    found, place = {}, 0
    for each, count in counts.items():
        found[each] = values[place : place + each * count].reshape(each, count).T
        place += each * count
    return found


def _from_bits(region: Region, positions: Bytes, taken: int, where: str) -> tuple[Counts, int]:
    end = taken + -(-region.words // 8)
    bits = np.unpackbits(positions[taken:end], bitorder="little")
    places = np.flatnonzero(bits)
    if end > len(positions) or len(places) != region.nonzero or bits[region.words :].any():
        raise _damaged(where, "the bits of a region do not fit it")
    return places, end


def _from_gaps(region: Region, positions: Bytes, taken: int, where: str) -> tuple[Counts, int]:
    # At most one byte a value and one for every 255 zeros.
    window = positions[taken : taken + region.nonzero + region.words // _ESCAPE + 1]
    ends = np.flatnonzero(window != _ESCAPE)[: region.nonzero]
    if len(ends) < region.nonzero:
        raise _damaged(where, "the gaps of a region end early")
    used = int(ends[-1]) + 1 if len(ends) else 0
    places = np.cumsum(window[:used].astype(np.int64))[ends] + np.arange(region.nonzero)
    if len(places) and places[-1] >= region.words:
        raise _damaged(where, "the gaps of a region do not fit it")
    return places, taken + used


def _damaged(where: str, what: str) -> BundleError:
    return BundleError(f"{where} is no sparse form of a model: {what}", "copy the bundle again, or export it again")
