"""Calibration frames from folders and files: as a camera would deliver them, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeslim.errors import DataError
from edgeslim.exporter.precision import read_frames as module
from edgeslim.exporter.precision.read_frames import read_frames
from edgeslim.runtime import ImageSpec

RGB = ImageSpec(mean=(0.5,) * 3, std=(0.5,) * 3, size_multiple=8)
GREY = ImageSpec(colour="grey", mean=(0.5,), std=(0.5,), size_multiple=1)


def picture(path: Path, value: int, size: tuple[int, int] = (16, 24), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = (3,) if mode == "RGB" else ()
    dtype = np.uint16 if mode == "I;16" else np.uint8
    Image.fromarray(np.full((*size, *channels), value, dtype)).save(path)
    return path


def test_a_folder_is_read_in_order_with_what_lies_deeper(tmp_path: Path) -> None:
    picture(tmp_path / "b.png", 2, (20, 24))
    picture(tmp_path / "a.png", 1)
    picture(tmp_path / "cats" / "c.png", 3)
    (tmp_path / "notes.txt").write_text("no image")
    found = read_frames(tmp_path, RGB)
    assert [frame[0, 0, 0] for frame in found] == [1, 2, 3]
    assert [frame.shape for frame in found] == [(16, 24, 3), (24, 24, 3), (16, 24, 3)]
    assert all(frame.dtype == np.uint8 for frame in found)


def test_a_frame_is_mirrored_up_to_the_multiple(tmp_path: Path) -> None:
    pixels = np.arange(9 * 8 * 3, dtype=np.uint8).reshape(9, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (frame,) = read_frames(tmp_path, RGB)
    assert frame.shape == (16, 8, 3)
    assert np.array_equal(frame[:9], pixels) and np.array_equal(frame[9:], pixels[:1:-1])


def test_few_of_many_are_spread_over_all(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz", frames=np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((8, 8, 3), np.uint8)
    )
    assert [int(f[0, 0, 0]) for f in read_frames(tmp_path / "a.npz", RGB, 4)] == [0, 25, 50, 75]
    assert len(read_frames(tmp_path / "a.npz", RGB)) == 100


def test_a_large_folder_is_not_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    for number in range(9):
        picture(tmp_path / f"{number}.png", number)
    (tmp_path / "1.png").write_text("broken, and not among those that are taken")
    assert [int(f[0, 0, 0]) for f in read_frames(tmp_path, RGB)] == [0, 3, 6]


def test_grey_nets_get_grey_frames_and_colour_nets_colour(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 77, mode="L")
    picture(tmp_path / "b.png", 40_000, mode="I;16")
    colour = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / "c.png")
    grey = read_frames(tmp_path, GREY)
    assert [frame.shape for frame in grey] == [(16, 24, 1)] * 3
    assert int(grey[0][0, 0, 0]) == 77 and int(grey[1][0, 0, 0]) == 156  # 40,000 / 257, where Pillow would clip to 255
    assert np.array_equal(grey[2][:, :, 0], np.asarray(Image.fromarray(colour).convert("L")))
    assert [frame.shape[2] for frame in read_frames(tmp_path, RGB)] == [3, 3, 3]


def test_what_cannot_be_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no images"):
        read_frames(tmp_path, RGB)
    picture(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match="has 1 images, 2 were asked for"):
        read_frames(tmp_path, RGB, 2)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"b\.png is not an image") as caught:
        read_frames(tmp_path, RGB)
    assert "on_error" not in caught.value.hint  # there is no such option here
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_frames(tmp_path / "none", RGB)
    with pytest.raises(DataError, match=r"a\.png cannot be read: File is not a zip file"):
        read_frames(tmp_path / "a.png", RGB)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((2, 0, 8, 3), np.uint8),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path: Path, frames: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", frames=frames)
    with pytest.raises(DataError, match=r"a\.npz: frames are"):
        read_frames(tmp_path / "a.npz", RGB)
