"""MNIST's four files in idx format (LeCun), packed by gzip or not:

    root/train-images-idx3-ubyte[.gz]   root/train-labels-idx1-ubyte[.gz]
    root/t10k-images-idx3-ubyte[.gz]    root/t10k-labels-idx1-ubyte[.gz]        also with a dot before idx

An idx file is 00 00, a byte for the type (08: uint8), a byte for the number of axes, their lengths as big-endian
32-bit numbers, then the values, the last axis fastest. A plain file is mapped into memory, a packed one unpacked.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import DataError

from ..recipe_data import MnistData
from .labelled import ArrayImages, ClassificationData, LabelledImages, check_every_class
from .split import split_by_class

_MOST_BYTES = 2**34
"""A header that announces more is not believed."""


def build_mnist(spec: MnistData, seed: int) -> ClassificationData:
    """Read and check the four files. Raises DataError naming the file that does not fit."""
    train, size = _part(spec, "train")
    test, test_size = _part(spec, "t10k")
    if size != test_size:
        raise DataError(
            f"{spec.root}: training images are {size[0]}x{size[1]}, test images {test_size[0]}x{test_size[1]}",
            "take both from the same set",
        )
    check_every_class(train.labels, spec.classes, spec.root)
    kept, held = split_by_class(train.labels, spec.validation, seed)
    return ClassificationData(
        train=train.select(kept),
        validation=train.select(held),
        test=test,
        classes=spec.classes,
        size=size,
        channels=1,
    )


def _part(spec: MnistData, part: str) -> tuple[LabelledImages, tuple[int, int]]:
    images_path, labels_path = (_find(spec.root, part, kind, axes) for kind, axes in (("images", 3), ("labels", 1)))
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} has {len(images)} images, {labels_path} has {len(labels)} labels", "take both from one set"
        )
    if images.size == 0:
        raise DataError(f"{images_path} has no images", "copy the file again")
    if labels.max() >= len(spec.classes):
        place = int(labels.argmax())
        raise DataError(
            f"{labels_path}: label {labels[place]} at number {place}; allowed are 0 to {len(spec.classes) - 1}",
            "name all classes in data.classes",
        )
    source = ArrayImages(pixels=images[..., None], prefix="test" if part == "t10k" else part)
    return LabelledImages(source, labels), (images.shape[1], images.shape[2])


def _find(root: Path, part: str, kind: str, axes: int) -> Path:
    names = [f"{part}-{kind}{dot}idx{axes}-ubyte{packed}" for packed in ("", ".gz") for dot in "-."]
    for name in names:
        if (root / name).is_file():
            return root / name
    raise DataError(f"{root} has no {names[0]}, nor {names[2]}", f"check data.root; a relative path is in {Path.cwd()}")


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """The array in an idx file of uint8 with `axes` axes. Raises DataError naming what is wrong with it."""
    header = 4 + 4 * axes
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            head = file.read(header)
            shape = _shape(path, head, axes)
            wanted = math.prod(shape)
            # A packed file may unpack to anything: never ask for more than the header says and one byte.
            body = file.read(wanted + 1) if packed else b""
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}", "copy the file again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "check the path") from error
    found = len(body) if packed else path.stat().st_size - header
    if found != wanted:
        more = "more than " if packed and found > wanted else ""
        raise DataError(
            f"{path}: {more}{min(found, wanted) if more else found} bytes behind the header, which announces "
            f"{' x '.join(map(str, shape))} = {wanted}",
            "the file is cut off or not whole: copy it again",
        )
    if packed or not wanted:
        return np.frombuffer(body, np.uint8).reshape(shape)
    return np.memmap(path, np.uint8, mode="r", offset=header, shape=shape)


def _shape(path: Path, head: bytes, axes: int) -> tuple[int, ...]:
    magic = bytes((0, 0, 8, axes))
    if head[:4] != magic:
        raise DataError(
            f"{path} begins with {head[:4].hex(' ') or 'nothing'}; an idx file of {axes} axes of uint8 "
            f"begins with {magic.hex(' ')}",
            "this is another file, or one packed otherwise",
        )
    if len(head) < 4 + 4 * axes:
        raise DataError(f"{path} ends within its header", "copy the file again")
    shape: tuple[int, ...] = struct.unpack(f">{axes}I", head[4:])
    if math.prod(shape) > _MOST_BYTES:
        raise DataError(f"{path} announces {' x '.join(map(str, shape))} bytes", "copy the file again")
    return shape
