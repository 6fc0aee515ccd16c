"""STARE: the real set where it is there, and a small copy of its layout for what can go wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeslim.errors import DataError
from edgeslim.trainer.data import build_data
from edgeslim.trainer.recipe_data import StareData


def spec(root: Path, **options: Any) -> StareData:
    return StareData(name="stare", root=root, **options)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Six 16x20 pictures; the field of view leaves out the first two columns, the vessel is row 5."""
    vessel, view = np.zeros((16, 20), dtype=bool), np.ones((16, 20), dtype=bool)
    vessel[5], view[:, :2] = True, False
    for folder in ("images", "manual_ah", "manual_vk", "mask"):
        (tmp_path / folder).mkdir()
    for i in range(6):
        Image.new("RGB", (20, 16), (i, 0, 0)).save(tmp_path / "images" / f"im{i}.png")
        Image.fromarray(vessel).save(tmp_path / "manual_ah" / f"im{i}.png")
        Image.fromarray(np.roll(vessel, 1, axis=0)).save(tmp_path / "manual_vk" / f"im{i}.png")
        Image.fromarray(view).save(tmp_path / "mask" / f"im{i}.png")
    return tmp_path


def test_real_set(shared_data: Path) -> None:
    data = build_data(spec(shared_data / "stare"), seed=0)
    assert [len(data.train), len(data.validation), len(data.test)] == [8, 2, 10]
    assert data.test.names[0] == "im0162" and max(data.train.names) < "im0162"
    share = []
    for sample in [*data.train, *data.validation, *data.test]:
        assert sample.image.shape == (605, 700, 3)
        share.append((sample.mask == 1).sum() / (sample.mask != 255).sum())
        assert 0.05 < (sample.mask == 255).mean() < 0.5  # the camera's black border
    assert 0.09 < np.mean(share) < 0.12  # 7.6 % of all pixels, more of the field of view


def test_outside_of_the_field_of_view_is_unlabelled(small: Path) -> None:
    mask = build_data(spec(small, train=3), seed=0).test[0].mask
    assert (mask[:, :2] == 255).all() and (mask[5, 2:] == 1).all() and (mask[6:, 2:] == 0).all()


def test_second_observer(small: Path) -> None:
    mask = build_data(spec(small, train=3, observer="vk"), seed=0).test[0].mask
    assert (mask[6, 2:] == 1).all() and (mask[5, 2:] == 0).all()


def test_first_images_train_and_rest_test(small: Path) -> None:
    data = build_data(spec(small, train=4), seed=0)
    assert data.test.names == ("im4", "im5")
    assert sorted([*data.train.names, *data.validation.names]) == ["im0", "im1", "im2", "im3"]


def test_nothing_left_to_test_on(small: Path) -> None:
    with pytest.raises(DataError, match=r"data.train is 6 of 6 images"):
        build_data(spec(small, train=6), seed=0)


def test_too_few_to_validate(small: Path) -> None:
    with pytest.raises(DataError, match="1 image is too few"):
        build_data(spec(small, train=1), seed=0)


def test_missing_field_of_view_is_named(small: Path) -> None:
    (small / "mask" / "im2.png").unlink()
    with pytest.raises(DataError, match=r"1 images without mask: im2.png"):
        build_data(spec(small, train=3), seed=0)


def test_field_of_view_of_another_size(small: Path) -> None:
    Image.new("1", (20, 15)).save(small / "mask" / "im2.png")
    with pytest.raises(DataError, match=r"mask/im2.png is 20x15 but its image .*im2.png is 20x16"):
        build_data(spec(small, train=3), seed=0)


def test_missing_observer_folder(small: Path) -> None:
    (small / "manual_ah").rename(small / "elsewhere")
    with pytest.raises(DataError, match="manual_ah cannot be read"):
        build_data(spec(small, train=3), seed=0)


def test_damaged_test_image_is_skipped_and_counted(small: Path) -> None:
    (small / "images" / "im5.png").write_bytes(b"")
    data = build_data(spec(small, train=4, on_error="skip"), seed=0)
    assert data.test.names == ("im4",) and data.skipped == (str(small / "images" / "im5.png"),)
