"""DRIVE, CHASE_DB1 and CamVid as they are distributed: which files belong together, which parts there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from edgeslim.errors import DataError
from edgeslim.trainer.data import SegmentationData, build_data
from edgeslim.trainer.data.split import split_by_class
from edgeslim.trainer.recipe_data import DataSpec

SIZE = (30, 20)  # width, height


def build(name: str, root: Path, **options: Any) -> SegmentationData:
    spec = TypeAdapter(DataSpec).validate_python({"name": name, "root": root, **options})
    data = build_data(spec, seed=0)
    assert isinstance(data, SegmentationData)
    return data


def photograph(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (120, 60, 30)).save(path)


def drawing(path: Path, left: int = 10, inverted_palette: bool = False) -> None:
    """White from column `left` on; in a GIF by a palette, if wanted with white first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    white = np.zeros(SIZE[::-1], bool)
    white[:, left:] = True
    if inverted_palette:
        picture = Image.fromarray(np.where(white, 0, 1).astype(np.uint8))
        picture.putpalette([255, 255, 255, 0, 0, 0])
    else:
        picture = Image.fromarray(np.where(white, 255, 0).astype(np.uint8))
    picture.save(path)


def write_drive(root: Path, manual: bool = True, mask: bool = True) -> Path:
    for part, numbers in (("training", range(21, 27)), ("test", range(1, 4))):
        for number in numbers:
            photograph(root / part / "images" / f"{number:02d}_{part}.tif")
            if manual or part == "training":
                drawing(root / part / "1st_manual" / f"{number:02d}_manual1.gif", inverted_palette=number % 2 == 0)
            if mask:
                drawing(root / part / "mask" / f"{number:02d}_{part}_mask.gif", left=5)
    return root


def test_drive(tmp_path: Path) -> None:
    data = build("drive", write_drive(tmp_path))
    assert (len(data.train), len(data.validation), len(data.test)) == (5, 1, 3)
    for part in (data.train, data.validation, data.test):
        for sample in part:
            assert (sample.mask[:, :5] == 255).all() and (sample.mask[:, 5:10] == 0).all()
            assert (sample.mask[:, 10:] == 1).all(), "the order of a GIF's palette decides nothing"
    assert [sample.name for sample in data.test] == ["01", "02", "03"]


def test_drive_without_fields_of_view_or_test_labels(tmp_path: Path) -> None:
    write_drive(tmp_path, manual=False, mask=False)
    with pytest.raises(DataError, match="test has images/ but no 1st_manual/") as caught:
        build("drive", tmp_path)
    assert "data.test: 5" in caught.value.hint
    data = build("drive", tmp_path, test=2)
    assert [sample.name for sample in data.test] == ["25", "26"] and len(data.train) == 3
    assert not (data.train[0].mask == 255).any()
    with pytest.raises(DataError, match=r"data\.test is 6 of 6 training images"):
        build("drive", tmp_path, test=6)


def test_drive_with_files_that_do_not_belong(tmp_path: Path) -> None:
    write_drive(tmp_path)
    photograph(tmp_path / "training" / "images" / "31_training.tif")
    with pytest.raises(DataError, match=r"1 images without mask: 31_training\.tif"):
        build("drive", tmp_path)
    (tmp_path / "training" / "images" / "31_training.tif").rename(tmp_path / "training" / "images" / "copy.tif")
    with pytest.raises(DataError, match=r"copy\.tif: the name does not begin with a number"):
        build("drive", tmp_path)
    (tmp_path / "training" / "images" / "copy.tif").rename(tmp_path / "training" / "images" / "21_b.tif")
    with pytest.raises(DataError, match="have the same number 21"):
        build("drive", tmp_path)


def write_chase(root: Path, children: int = 5) -> Path:
    for child in range(1, children + 1):
        for eye in "LR":
            photograph(root / f"Image_{child:02d}{eye}.jpg")
            drawing(root / f"Image_{child:02d}{eye}_1stHO.png")
            drawing(root / f"Image_{child:02d}{eye}_2ndHO.png", left=20)
    return root


@pytest.mark.parametrize(("observer", "left"), [("1stHO", 10), ("2ndHO", 20)])
def test_chase(tmp_path: Path, observer: str, left: int) -> None:
    data = build("chase-db1", write_chase(tmp_path), observer=observer, train=8)
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 2, 2)
    assert [sample.name for sample in data.test] == ["Image_05L", "Image_05R"]
    assert (data.test[0].mask[:, :left] == 0).all() and (data.test[0].mask[:, left:] == 1).all()


def test_chase_with_fields_of_view(tmp_path: Path) -> None:
    write_chase(tmp_path)
    for path in list(tmp_path.glob("*.jpg")):
        drawing(tmp_path / "mask" / f"{path.stem}.png", left=3)
    data = build("chase-db1", tmp_path, train=8)
    assert (data.train[0].mask[:, :3] == 255).all() and not (data.train[0].mask[:, 3:] == 255).any()
    (tmp_path / "mask" / "Image_01L.png").unlink()
    with pytest.raises(DataError, match=r"1 images without mask: Image_01L\.jpg"):
        build("chase-db1", tmp_path, train=8)


def test_chase_that_is_not_whole(tmp_path: Path) -> None:
    write_chase(tmp_path)
    with pytest.raises(DataError, match=r"data\.train is 20 of 10 images"):
        build("chase-db1", tmp_path)
    for path in tmp_path.glob("*2ndHO*"):
        path.unlink()
    (tmp_path / "Image_02R_1stHO.png").unlink()
    with pytest.raises(DataError, match=rf"^{re.escape(str(tmp_path))}: 10 images and 9 masks do not pair"):
        build("chase-db1", tmp_path, train=8)
    with pytest.raises(DataError, match=r"has no pictures Image_01L_2ndHO\.png"):
        build("chase-db1", tmp_path, observer="2ndHO")
    for path in tmp_path.glob("*.jpg"):
        path.unlink()
    with pytest.raises(DataError, match=r"has no photographs Image_01L\.jpg"):
        build("chase-db1", tmp_path)


def write_camvid(root: Path, highest: int = 11) -> Path:
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        for number in range(count):
            photograph(root / part / f"{part}{number}.png")
            ids = np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE[::-1]) % (highest + 1)
            (root / f"{part}annot").mkdir(exist_ok=True)
            Image.fromarray(ids).save(root / f"{part}annot" / f"{part}{number}.png")
    return root


def test_camvid(tmp_path: Path) -> None:
    data = build("camvid", write_camvid(tmp_path))
    assert (len(data.train), len(data.validation), len(data.test)) == (4, 2, 3)
    assert len(data.classes) == 11 == data.ignore_index and data.classes[8] == "car"
    assert {sample.name for sample in data.validation} == {"val0", "val1"}


def test_camvid_resized(tmp_path: Path) -> None:
    whole, half = (build("camvid", write_camvid(tmp_path), size=size).test[0] for size in (None, (10, 15)))
    assert half.image.shape == (10, 15, 3) and half.mask.shape == (10, 15)
    assert (half.image == whole.image[::2, ::2]).all()  # a picture of one colour
    assert set(np.unique(half.mask)) <= set(np.unique(whole.mask))  # no class between two classes


def test_camvid_that_is_not_whole(tmp_path: Path) -> None:
    write_camvid(tmp_path / "a", highest=12)
    with pytest.raises(DataError, match=r"trainannot/train0\.png: mask value 12 .* allowed are 0 to 10 and 11"):
        build("camvid", tmp_path / "a")
    write_camvid(tmp_path / "b")
    (tmp_path / "b" / "valannot" / "val1.png").unlink()
    with pytest.raises(DataError, match=r"2 images and 1 masks do not pair: 1 images without mask: val1\.png"):
        build("camvid", tmp_path / "b")
    write_camvid(tmp_path / "c", highest=0)
    with pytest.raises(DataError, match="only class 'sky' is labelled in all 4 training masks") as caught:
        build("camvid", tmp_path / "c")
    assert "data.mask" not in caught.value.hint  # an option that this set has not


def test_the_real_camvid(shared_data: Path) -> None:
    data = build("camvid", shared_data / "camvid")
    assert (len(data.train), len(data.validation), len(data.test)) == (367, 101, 233)
    assert data.test[0].image.shape == (360, 480, 3)


@pytest.mark.parametrize(
    ("counts", "share", "held"), [((10, 20), 0.2, (2, 4)), ((1, 9), 0.5, (0, 4)), ((2, 2), 0.1, (1, 0))]
)
def test_every_class_is_split_alike(counts: tuple[int, ...], share: float, held: tuple[int, ...]) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    kept, out = split_by_class(labels, share, seed=1)
    assert sorted([*kept, *out]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all() and (np.diff(out) > 0).all()
    assert tuple(np.bincount(labels[out], minlength=len(counts))) == held
    assert np.array_equal(split_by_class(labels, share, seed=1)[1], out)
