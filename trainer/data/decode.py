"""From a file to labels, and never to wrong ones: a palette mask gives its indices and not its colours.

Pictures are read by `exporter/pictures.py`, which calibration needs too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import DataError
from edgeslim.exporter.pictures import DecodeError, decode_image, open_picture

__all__ = ["DecodeError", "decode_image", "decode_mask"]

_EXACT_MASK_FORMATS = ("PNG", "BMP", "TIFF")


def decode_mask(path: Path, binary: bool = False) -> NDArray[np.int64]:
    """The labels in `path` as (H, W) int64: its grey values, its palette indices, or 0 and 1 of a 1-bit file.

    binary: non-zero becomes 1; a JPEG, whose values are only nearly right, is split at 128, and so is the brightness
    of a GIF, whose palette may stand in any order.
    Raises DecodeError if it cannot be read, DataError if it is colour, floating point, or ids in a JPEG.
    """
    image = open_picture(path)
    lossy = image.format not in _EXACT_MASK_FORMATS
    if image.format == "GIF":
        image = image.convert("L")
    if lossy and not binary:
        raise DataError(f"{path}: {image.format} changes pixel values, so class ids are lost", "save masks as PNG")
    if image.mode == "F":
        raise DataError(f"{path}: a mask has whole numbers, this has floating point", "save class ids as 8-bit PNG")
    values = np.asarray(image).astype(np.int64)
    if values.ndim == 3:
        # Alpha (the last of 2 or 4 channels) is no label; equal colours are a grey mask saved as colour.
        colours = values[:, :, : values.shape[2] - 1 + values.shape[2] % 2]
        if not np.all(colours == colours[:, :, :1]) and not lossy:
            raise DataError(
                f"{path}: a mask is one value per pixel, this is a colour picture ({image.mode})",
                "replace its colours by class ids: 0 for the first class, 1 for the second, ...",
            )
        values = colours[:, :, 0]
    if binary:
        values = (values >= (128 if lossy else 1)).astype(np.int64)
    return values
