"""One folder a class: sizes, splits, what is skipped and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgeslim.errors import DataError
from edgeslim.trainer.data import ClassificationData, build_data
from edgeslim.trainer.data.image_folder import fitted
from edgeslim.trainer.recipe_data import ImageFolderData

COLOURS = {"ant": (200, 0, 0), "bee": (0, 200, 0), "cat": (0, 0, 200)}


def write_set(root: Path, count: int = 10, size: tuple[int, int] = (20, 30), suffix: str = "png") -> Path:
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", size, colour).save(root / name / f"{number}.{suffix}")
    return root


def build(root: Path, **options: Any) -> ClassificationData:
    spec = ImageFolderData(name="image-folder", root=root, size=options.pop("size", (16, 16)), **options)
    data = build_data(spec, seed=0)
    assert isinstance(data, ClassificationData)
    return data


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_a_class_is_a_folder(tmp_path: Path, suffix: str) -> None:
    data = build(write_set(tmp_path, suffix=suffix))
    assert data.classes == tuple(COLOURS)
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 6, 6)
    names = set()
    for part in (data.train, data.validation, data.test):
        for labelled in part:
            assert (labelled.image == COLOURS[data.classes[labelled.label]]).all()
            assert labelled.image.shape == (16, 16, 3)
            assert labelled.name.startswith(data.classes[labelled.label])
            names.add(labelled.name)
    assert len(names) == 30
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]


def test_grey_and_a_test_set_of_its_own(tmp_path: Path) -> None:
    write_set(tmp_path / "train")
    write_set(tmp_path / "test", count=3)
    data = build(tmp_path, grey=True, size=(8, 12))
    assert (len(data.train), len(data.validation), len(data.test)) == (24, 6, 9)
    assert data.channels == 1 and data.test[0].image.shape == (8, 12, 1)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_any_image_fits_any_size(height: int, width: int, to_height: int, to_width: int, grey: bool) -> None:
    image = np.full((height, width, 3), 77, np.uint8)
    found = fitted(image, (to_height, to_width), grey=grey)
    assert found.shape == (to_height, to_width, 1 if grey else 3) and (found == 77).all()


def test_the_middle_is_kept() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 255
    assert (fitted(image, (10, 10)) == 255).all()
    assert fitted(image, (10, 30)) is not image and np.array_equal(fitted(image, (10, 30)), image)


def test_a_strip_takes_no_more_memory_than_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = []
    resize = Image.Image.resize

    def watched(picture: Image.Image, size: tuple[int, int], *more: Any) -> Image.Image:
        largest.append(size[0] * size[1])
        return resize(picture, size, *more)

    monkeypatch.setattr(Image.Image, "resize", watched)
    strip = np.zeros((2, 20_000, 3), np.uint8)
    strip[:, 9_990:10_010] = 255
    assert (fitted(strip, (32, 32)) == 255).all() and max(largest) == 32 * 32


def test_a_test_set_of_nothing_but_damaged_files(tmp_path: Path) -> None:
    write_set(tmp_path / "train")
    for file in sorted(write_set(tmp_path / "test", count=2).glob("*/*.png")):
        file.write_bytes(b"no picture")
    (tmp_path / "test" / "bee" / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"all 6 images were skipped .* the first is .*test/ant/0\.png"):
        build(tmp_path, on_error="skip")


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    def refused(expected: str, **options: Any) -> None:
        with pytest.raises(DataError, match=expected):
            build(tmp_path / "set", **options)

    refused("data folder .*set cannot be read")
    root = write_set(tmp_path / "set")
    (root / "dog").mkdir()
    refused("dog has no images: the class is empty")
    (root / "dog").rmdir()
    (root / "ant" / "notes.txt").write_text("hello")
    refused(r"ant/notes\.txt is no image: its name ends in \.txt; allowed are \.png")
    assert build(root, on_error="skip").skipped == (str(root / "ant" / "notes.txt"),)
    (root / "ant" / "notes.txt").unlink()
    (root / "bee" / "3.png").write_bytes(b"no picture")
    refused(r"bee/3\.png is not an image that Pillow knows")
    data = build(root, on_error="skip")
    assert data.skipped == (str(root / "bee" / "3.png"),)
    assert len(data.train) + len(data.validation) + len(data.test) == 29
    for file in (root / "bee").iterdir():
        file.write_bytes(b"no picture")
    refused("no training image of 1 of 3 classes: bee", on_error="skip")


def test_a_class_that_only_the_test_set_has(tmp_path: Path) -> None:
    write_set(tmp_path / "train")
    write_set(tmp_path / "test", count=2)
    (tmp_path / "test" / "dog").mkdir()
    with pytest.raises(DataError, match="dog is no class of the training images") as caught:
        build(tmp_path)
    assert "ant, bee, cat" in caught.value.hint


def test_one_folder_is_no_choice(tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    with pytest.raises(DataError, match="has 1 folders; a class is a folder, and two are the least"):
        build(tmp_path)


def test_images_beyond_the_cache_are_decoded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(write_set(tmp_path))
    monkeypatch.setattr("edgeslim.trainer.data.image_folder.CACHE_BYTES", 5 * 16 * 16 * 3)
    thin = build(tmp_path)
    assert [x.name for x in thin.train] == [x.name for x in whole.train]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(thin.train, whole.train))
