"""`segmentation-folder`: what is read, and one DataError for each way a folder can be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeslim.errors import DataError
from edgeslim.progress import Silent, told_late
from edgeslim.trainer.data import SegmentationData, build_data
from edgeslim.trainer.recipe_data import SegmentationFolderData

SIZE = (20, 24)


def write_part(root: Path, count: int, first: int = 0, values: tuple[int, ...] = (0, 1, 255)) -> None:
    """Write images/ and masks/ with `count` pairs; picture i is filled with the value i."""
    rng = np.random.default_rng(7)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for i in range(first, first + count):
        Image.fromarray(np.full((*SIZE, 3), i, dtype=np.uint8)).save(root / "images" / f"im{i:02d}.png")
        mask = rng.choice(np.array(values, dtype=np.uint8), SIZE)
        Image.fromarray(mask).save(root / "masks" / f"im{i:02d}.png")


def spec(root: Path, **options: Any) -> SegmentationFolderData:
    defaults: dict[str, Any] = {"classes": ("ground", "thing"), "test": 0.25, "validation": 0.2}
    return SegmentationFolderData(name="segmentation-folder", root=root, **(defaults | options))


def test_flat_folder_is_split_into_three_disjoint_parts(tmp_path: Path) -> None:
    write_part(tmp_path, 20)
    data = build_data(spec(tmp_path), seed=3)
    assert [len(data.train), len(data.validation), len(data.test)] == [12, 3, 5]
    names = [*data.train.names, *data.validation.names, *data.test.names]
    assert sorted(names) == [f"im{i:02d}" for i in range(20)]
    sample = data.test[0]
    assert sample.image.shape == (*SIZE, 3) and sample.mask.shape == SIZE
    assert set(np.unique(sample.mask)) == {0, 1, 255}
    assert sample.image[0, 0, 0] == int(sample.name[2:])
    assert data.classes == ("ground", "thing") and data.ignore_index == 255 and data.skipped == ()


def test_same_seed_same_split_and_other_seed_another(tmp_path: Path) -> None:
    write_part(tmp_path, 20)
    first, again, other = (build_data(spec(tmp_path), seed=s) for s in (1, 1, 2))
    assert first.test.names == again.test.names and first.validation.names == again.validation.names
    assert first.test.names != other.test.names


def test_own_test_folder_is_the_test_set(tmp_path: Path) -> None:
    write_part(tmp_path / "train", 6)
    write_part(tmp_path / "test", 3, first=10)
    data = build_data(spec(tmp_path), seed=0)
    assert data.test.names == ("im10", "im11", "im12")
    assert len(data.train) + len(data.validation) == 6


def test_test_folder_beside_a_flat_folder(tmp_path: Path) -> None:
    write_part(tmp_path, 5)
    write_part(tmp_path / "test", 2)
    data = build_data(spec(tmp_path), seed=0)
    assert [len(data.train), len(data.validation), len(data.test)] == [4, 1, 2]


def test_mixed_formats_sizes_and_stray_files(tmp_path: Path) -> None:
    write_part(tmp_path, 4)
    Image.fromarray(np.zeros((50, 30, 3), dtype=np.uint8)).save(tmp_path / "images" / "photo.JPG")
    Image.fromarray(np.ones((50, 30), dtype=np.uint8)).save(tmp_path / "masks" / "photo.tif")
    (tmp_path / "images" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "images" / ".hidden.png").write_bytes(b"x")
    data = build_data(spec(tmp_path), seed=0)
    everything = [*data.train, *data.validation, *data.test]
    assert {s.image.shape for s in everything} == {(*SIZE, 3), (50, 30, 3)}


def test_binary_masks(tmp_path: Path) -> None:
    write_part(tmp_path, 5, values=(0, 255))
    data = build_data(spec(tmp_path, mask="binary"), seed=0)
    assert set(np.unique(data.train[0].mask)) == {0, 1}


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere/images cannot be read: No such file"):
        build_data(spec(tmp_path / "nowhere"), seed=0)


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match=r"images has no images") as caught:
        build_data(spec(tmp_path), seed=0)
    assert ".png" in caught.value.hint


def test_orphans_are_named_on_both_sides(tmp_path: Path) -> None:
    write_part(tmp_path, 9)
    (tmp_path / "masks" / "im03.png").unlink()
    (tmp_path / "masks" / "im00.png").rename(tmp_path / "masks" / "other.png")
    message = (
        r"9 images and 8 masks do not pair: 2 images without mask: im00.png, im03.png; 1 masks without image: other"
    )
    with pytest.raises(DataError, match=message):
        build_data(spec(tmp_path), seed=0)


def test_many_orphans_are_counted_not_listed(tmp_path: Path) -> None:
    write_part(tmp_path, 9)
    for i in range(8):
        (tmp_path / "masks" / f"im{i:02d}.png").unlink()
    with pytest.raises(DataError, match=r"8 images without mask: im00.*im04.png and 3 more"):
        build_data(spec(tmp_path), seed=0)


def test_two_files_with_one_base_name(tmp_path: Path) -> None:
    write_part(tmp_path, 2)
    Image.new("RGB", SIZE).save(tmp_path / "images" / "im00.bmp")
    with pytest.raises(DataError, match=r"im00.bmp and .*im00.png have the same base name"):
        build_data(spec(tmp_path), seed=0)


def test_images_beside_train_is_ambiguous(tmp_path: Path) -> None:
    write_part(tmp_path, 2)
    write_part(tmp_path / "train", 2)
    with pytest.raises(DataError, match="both images/ and train/"):
        build_data(spec(tmp_path), seed=0)


def test_size_mismatch_names_file_and_both_sizes(tmp_path: Path) -> None:
    write_part(tmp_path, 5)
    Image.fromarray(np.zeros((10, 11), dtype=np.uint8)).save(tmp_path / "masks" / "im02.png")
    with pytest.raises(DataError, match=r"masks/im02.png is 11x10 but its image .*im02.png is 24x20"):
        build_data(spec(tmp_path), seed=0)


def test_id_outside_the_classes_names_file_value_and_allowed(tmp_path: Path) -> None:
    write_part(tmp_path, 5)
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[3, 4], mask[5, 6], mask[7, 8] = 7, 1, 200
    Image.fromarray(mask).save(tmp_path / "masks" / "im02.png")
    with pytest.raises(
        DataError, match=r"im02.png: mask value 7 at row 3, column 4; allowed are 0 to 1 and 255.*found 7, 200"
    ):
        build_data(spec(tmp_path), seed=0)


def test_two_valued_mask_hints_at_binary(tmp_path: Path) -> None:
    write_part(tmp_path, 5, values=(0, 128))
    with pytest.raises(DataError) as caught:
        build_data(spec(tmp_path), seed=0)
    assert "data.mask: binary" in caught.value.hint


def test_black_and_white_masks_read_as_ids_do_not_pass_as_unlabelled(tmp_path: Path) -> None:
    """0 and 255 are legal ids (class 0 and unlabelled), and would train on background alone."""
    write_part(tmp_path, 5, values=(0, 255))
    with pytest.raises(DataError, match="only class 'ground' is labelled in all 5 training masks") as caught:
        build_data(spec(tmp_path), seed=0)
    assert "data.mask: binary" in caught.value.hint


def test_a_class_that_no_training_mask_shows_is_named(tmp_path: Path) -> None:
    write_part(tmp_path / "train", 5, values=(0, 1))
    write_part(tmp_path / "test", 2, values=(0, 1, 2))
    data = build_data(spec(tmp_path, classes=("ground", "thing", "sky")), seed=0)
    assert isinstance(data, SegmentationData) and data.absent == ("sky",)
    data = build_data(spec(tmp_path, classes=("ground", "thing", "void", "sky"), ignore_index=2), seed=0)
    assert isinstance(data, SegmentationData) and data.absent == ("sky",)


def test_corrupt_png_stops_by_default(tmp_path: Path) -> None:
    write_part(tmp_path, 5)
    corrupt(tmp_path / "images" / "im03.png")
    with pytest.raises(DataError, match=r"images/im03.png is damaged"):
        build_data(spec(tmp_path), seed=0)


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_corrupt_png_is_skipped_and_counted_on_request(tmp_path: Path, folder: str) -> None:
    write_part(tmp_path, 6)
    corrupt(tmp_path / folder / "im03.png")
    data = build_data(spec(tmp_path, on_error="skip"), seed=0)
    assert data.skipped == (str(tmp_path / folder / "im03.png"),)
    names = {*data.train.names, *data.validation.names, *data.test.names}
    assert names == {"im00", "im01", "im02", "im04", "im05"}


def test_skip_steps_over_damage_only(tmp_path: Path) -> None:
    write_part(tmp_path, 5)
    Image.fromarray(np.full(SIZE, 9, dtype=np.uint8)).save(tmp_path / "masks" / "im02.png")
    with pytest.raises(DataError, match="mask value 9"):
        build_data(spec(tmp_path, on_error="skip"), seed=0)


def test_all_images_skipped(tmp_path: Path) -> None:
    write_part(tmp_path, 3)
    for path in (tmp_path / "images").iterdir():
        corrupt(path)
    with pytest.raises(DataError, match=r"all 3 images were skipped.*im00.png"):
        build_data(spec(tmp_path, on_error="skip"), seed=0)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_images_for_a_split(tmp_path: Path, count: int) -> None:
    write_part(tmp_path, count)
    with pytest.raises(DataError, match="1 image is too few to hold out"):
        build_data(spec(tmp_path), seed=0)


def test_progress_is_told_of_every_file(tmp_path: Path) -> None:
    write_part(tmp_path, 4)
    seen: list[tuple[int, int]] = []
    build_data(spec(tmp_path), seed=0, report=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_quick_check_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_part(tmp_path, 4)
    build_data(spec(tmp_path), seed=0)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""


def test_only_a_slow_check_is_a_stage_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_part(tmp_path / "train", 4)
    write_part(tmp_path / "test", 3)
    heard: list[object] = []

    class Listening(Silent):
        def stage(self, name: str, total: int | None = None) -> None:
            heard.append((name, total))

        def step(self, done: int, values: Mapping[str, float]) -> None:
            heard.append(done)

    build_data(spec(tmp_path), 0, told_late(Listening(), "checking data"))
    assert heard == []
    monkeypatch.setattr("edgeslim.progress.PATIENCE_SECONDS", -1.0)
    build_data(spec(tmp_path), 0, told_late(Listening(), "checking data"))
    assert heard == [("checking data", 4), 1, 2, 3, 4, ("checking data", 3), 1, 2, 3]


def corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])
