"""idx files: the true format, packed and plain, and every way in which one can be wrong."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeslim.errors import DataError
from edgeslim.trainer.data import ClassificationData, build_data
from edgeslim.trainer.data.mnist import read_idx
from edgeslim.trainer.recipe_data import MnistData


def idx(array: NDArray[np.uint8]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_set(root: Path, *, packed: bool = True, dot: str = "-", count: int = 40, **changed: bytes) -> Path:
    """Four files; image i is filled with i, its class is i % 10. changed: other content for single files."""
    root.mkdir(exist_ok=True)
    for part, n in (("train", count), ("t10k", 10)):
        images = np.repeat(np.arange(n, dtype=np.uint8), 28 * 28).reshape(n, 28, 28)
        for kind, array in (("images", images), ("labels", np.arange(n, dtype=np.uint8) % 10)):
            data = changed.get(f"{part}_{kind}", idx(array))
            name = f"{part}-{kind}{dot}idx{array.ndim}-ubyte"
            (root / (name + ".gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)
    return root


def build(root: Path, **options: Any) -> ClassificationData:
    data = build_data(MnistData(name="mnist", root=root, **options), seed=0)
    assert isinstance(data, ClassificationData)
    return data


@pytest.mark.parametrize(("packed", "dot"), [(True, "-"), (False, "-"), (False, ".")])
def test_images_and_labels_stay_together(tmp_path: Path, packed: bool, dot: str) -> None:
    data = build(write_set(tmp_path, packed=packed, dot=dot))
    assert (data.size, data.channels, data.classes[3]) == ((28, 28), 1, "3")
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 10)
    for part in (data.train, data.validation, data.test):
        for labelled in part:
            assert labelled.image.shape == (28, 28, 1) and labelled.image.dtype == np.uint8
            assert labelled.label == int(labelled.image[3, 4, 0]) % 10
    assert np.bincount(data.validation.labels, minlength=10).tolist() == [1] * 10
    seen = {int(x.image[0, 0, 0]) for part in (data.train, data.validation) for x in part}
    assert seen == set(range(40)), "an image is in both parts, or in none"


@given(st.integers(0, 3), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_any_shape_comes_back(tmp_path_factory: pytest.TempPathFactory, n: int, h: int, w: int, packed: bool) -> None:
    array = np.random.default_rng(n).integers(0, 256, (n, h, w), np.uint8)
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    assert np.array_equal(read_idx(path, 3), array) and read_idx(path, 3).shape == array.shape


WHOLE = idx(np.zeros((10, 28, 28), np.uint8))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"t10k_images": WHOLE[:-1]}, r"t10k-images.*: 7839 bytes behind the header, .* 10 x 28 x 28 = 7840"),
        ({"t10k_images": WHOLE + b"x"}, r"t10k-images.*: (more than 7840|7841) bytes behind the header"),
        ({"t10k_images": WHOLE[:9]}, "ends within its header"),
        ({"t10k_images": b""}, "begins with nothing; an idx file of 3 axes of uint8 begins with 00 00 08 03"),
        ({"t10k_images": b"\x00\x00\x0d\x03" + WHOLE[4:]}, "begins with 00 00 0d 03"),
        ({"t10k_images": idx(np.zeros((9, 28, 28), np.uint8))}, "has 9 images, .* has 10 labels"),
        ({"t10k_images": idx(np.zeros((10, 20, 28), np.uint8))}, "training images are 28x28, test images 20x28"),
        ({"t10k_images": idx(np.zeros((0, 28, 28), np.uint8)), "t10k_labels": idx(np.zeros(0, np.uint8))}, "no images"),
        ({"train_labels": idx(np.full(40, 10, np.uint8))}, "label 10 at number 0; allowed are 0 to 9"),
        ({"train_labels": idx(np.zeros(40, np.uint8))}, "no training image of 9 of 10 classes: 1, 2, 3, 4, 5"),
        ({"t10k_images": b"\x00\x00\x08\x03" + b"\xff" * 12}, "announces 4294967295 x"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, packed: bool, changed: dict[str, bytes], expected: str) -> None:
    with pytest.raises(DataError, match=expected) as caught:
        build(write_set(tmp_path, packed=packed, **changed))
    assert str(tmp_path) in caught.value.message


def test_packing_that_is_damaged(tmp_path: Path) -> None:
    path = write_set(tmp_path) / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"\x1f\x8bnonsense", b"not gzip at all", whole[:-6] + b"\0" * 6):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is damaged"):
            build(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"has no train-images-idx3-ubyte, nor train-images-idx3-ubyte\.gz"):
        build(tmp_path)


def test_classes_by_name(tmp_path: Path) -> None:
    names = ("shirt", "trousers", *"abcdefgh")
    assert build(write_set(tmp_path), classes=names).classes == names


def test_the_real_set(shared_data: Path) -> None:
    data = build(shared_data / "mnist")
    assert (len(data.train) + len(data.validation), len(data.test)) == (60_000, 10_000)
    assert [x.label for x in data.test[:5]] == [7, 2, 1, 0, 4]
    assert np.bincount(data.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
