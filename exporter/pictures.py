"""From a file to a picture, and never to a wrong one.

Pillow reads the file; what it would convert silently and wrongly is handled here: 16-bit greys are scaled and not
clipped, a JPEG's rotation flag is applied, and a file that claims an absurd size is refused before its pixels are
allocated.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edgeslim.errors import DataError

MAX_PIXELS = 64 * 2**20
"""Larger images are refused: a 100 kB file can unpack to gigabytes."""

_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_HINT = "restore or remove it, or leave such files out with on_error: skip"


class DecodeError(DataError):
    """The file `path` cannot be decoded: the one problem that `on_error: skip` steps over."""

    def __init__(self, path: Path, problem: str, hint: str) -> None:
        super().__init__(f"{path} {problem}", hint)
        self.path = path


def decode_image(path: Path) -> NDArray[np.uint8]:
    """The picture in `path` as (H, W, 3) uint8 RGB, upright.

    Grey becomes three equal channels, transparency is dropped, 16-bit values are divided by 257.
    Raises DecodeError if it cannot be read, DataError if its pixels have no 8-bit meaning (floating point).
    """
    image = open_picture(path)
    if image.mode in _GREY_16:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(
                f"{path}: pixel values {values.min()} to {values.max()} exceed 16 bits", "save it as 8 or 16 bit"
            )
        grey = ((values + 128) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise DataError(f"{path}: floating-point pixels have no defined 8-bit value", "save it as 8 or 16 bit")
    # A palette may name a transparent colour; through RGBA Pillow drops it without a word.
    through = image.convert("RGBA") if image.mode == "P" else image
    return np.asarray(through.convert("RGB"), dtype=np.uint8)


def open_picture(path: Path) -> Image.Image:
    """The decoded, upright picture; `.format` is kept. Raises DecodeError, DataError where it cannot be opened."""
    try:
        with warnings.catch_warnings():
            # A bomb is ours to judge, by MAX_PIXELS; broken metadata is no reason to refuse the pixels.
            warnings.simplefilter("ignore")
            with Image.open(path) as probe:
                _check_size(path, probe.size)
                probe.verify()  # the checksums of a PNG up to its very end, which `load` is lenient about
            with Image.open(path) as image:
                image.load()
                upright = ImageOps.exif_transpose(image)
                upright.format = image.format
                return upright
    except DataError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}", "check the path") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error)) from error
    except UnidentifiedImageError as error:
        raise DecodeError(path, "is not an image that Pillow knows", _HINT) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error ...
        raise DecodeError(path, f"is damaged: {type(error).__name__}: {error}", _HINT) from error


def _check_size(path: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_large(path, f"{size[0]} x {size[1]} pixels")


def _too_large(path: Path, seen: str) -> DecodeError:
    return DecodeError(path, f"is refused: {seen}; allowed are {MAX_PIXELS} pixels", "cut it into tiles")
