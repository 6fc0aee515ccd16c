"""Decoding: every pixel format gives the right values, or a DataError that names the file."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeslim.errors import DataError
from edgeslim.exporter.pictures import MAX_PIXELS
from edgeslim.trainer.data import DecodeError, decode_image, decode_mask


def picture(height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_rgb_png_is_read_exactly(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    assert np.array_equal(decode_image(tmp_path / "a.png"), picture())


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_lossless_formats_agree(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(picture()).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(decode_image(tmp_path / f"a.{suffix}"), picture())


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(picture()[:, :, 0]).save(tmp_path / "a.png")
    assert np.array_equal(decode_image(tmp_path / "a.png"), np.repeat(picture()[:, :, :1], 3, axis=2))


def test_one_bit_image_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(picture()[:, :, 0] > 127).save(tmp_path / "a.png")
    assert np.array_equal(decode_image(tmp_path / "a.png")[:, :, 1], np.where(picture()[:, :, 0] > 127, 255, 0))


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    for suffix in ("png", "tif"):
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")
        assert decode_image(tmp_path / f"a.{suffix}")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_palette_image_gives_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=0)
    assert decode_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_transparency_is_dropped(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([picture(), picture()[:, :, 0]])).save(tmp_path / "a.png")
    assert np.array_equal(decode_image(tmp_path / "a.png"), picture())


def test_rotation_flag_of_a_photo_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.fromarray(picture(6, 8)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decode_image(tmp_path / "a.png"), np.rot90(picture(6, 8), -1))


def test_floating_point_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif.*floating"):
        decode_image(tmp_path / "a.tif")


def test_values_beyond_sixteen_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70000]], dtype=np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="70000 exceed 16 bits"):
        decode_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kept", [0, 7, 40, 0.5, 0.9])
def test_truncated_png_is_named(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "broken.png"
    Image.fromarray(picture(64, 64)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept >= 1 else kept * len(data))])
    with pytest.raises(DecodeError, match=r"broken\.png") as caught:
        decode_image(path)
    assert caught.value.path == path
    assert "on_error: skip" in caught.value.hint


def test_flipped_byte_in_a_png_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "flipped.png"
    Image.fromarray(picture(64, 64)).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=r"flipped\.png"):
        decode_image(path)


def test_text_file_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(DecodeError, match=r"a\.png is not an image"):
        decode_image(tmp_path / "a.png")


def test_missing_file_is_not_something_to_skip(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png cannot be opened") as caught:
        decode_image(tmp_path / "none.png")
    assert not isinstance(caught.value, DecodeError)


@pytest.mark.parametrize("side", [9000, 60000])
def test_decompression_bomb_is_refused_before_it_unpacks(tmp_path: Path, side: int) -> None:
    """A header that claims a huge picture, below and above Pillow's own limit."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(DecodeError, match=rf"bomb\.png is refused.*{MAX_PIXELS}"):
        decode_image(tmp_path / "bomb.png")


def test_mask_ids_survive_every_exact_format(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2, 255]], dtype=np.uint8)
    for suffix in ("png", "bmp", "tif"):
        Image.fromarray(ids).save(tmp_path / f"m.{suffix}")
        assert np.array_equal(decode_mask(tmp_path / f"m.{suffix}"), ids)


def test_palette_mask_gives_indices_not_colours(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "m.png")
    assert decode_mask(tmp_path / "m.png").tolist() == [[0, 1, 2]]


def test_one_bit_mask_is_zero_and_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "m.png")
    assert decode_mask(tmp_path / "m.png").tolist() == [[1, 0]]


def test_sixteen_bit_mask_keeps_large_ids(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1000]], dtype=np.uint16)).save(tmp_path / "m.png")
    assert decode_mask(tmp_path / "m.png").tolist() == [[0, 1000]]


def test_grey_mask_saved_as_colour_is_read(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [1, 255]], dtype=np.uint8)
    for channels in (3, 4):
        colour = np.repeat(ids[:, :, None], channels, axis=2)
        if channels == 4:
            colour[:, :, 3] = 255
        Image.fromarray(colour).save(tmp_path / "m.png")
        assert np.array_equal(decode_mask(tmp_path / "m.png"), ids)


def test_colour_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png.*colour picture \(RGB\)"):
        decode_mask(tmp_path / "m.png")


def test_binary_mask_takes_any_non_zero(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 255]], dtype=np.uint8)).save(tmp_path / "m.png")
    assert decode_mask(tmp_path / "m.png", binary=True).tolist() == [[0, 1, 1]]


def test_jpeg_mask_is_split_in_the_middle_when_binary_and_refused_as_ids(tmp_path: Path) -> None:
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[5:20, 9:23] = 255
    Image.fromarray(mask).save(tmp_path / "m.jpg", quality=75)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "m.jpg")))) > 2
    assert np.array_equal(decode_mask(tmp_path / "m.jpg", binary=True), mask // 255)
    with pytest.raises(DataError, match=r"m\.jpg: JPEG changes pixel values"):
        decode_mask(tmp_path / "m.jpg")


def test_floating_point_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(DataError, match=r"m\.tif.*whole numbers"):
        decode_mask(tmp_path / "m.tif")
