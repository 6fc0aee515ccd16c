"""Calibration frames from disk: a folder of images, or an NPZ file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import DataError, DeviceError
from edgeslim.runtime.manifest import ImageSpec
from edgeslim.runtime.npz import read_npz

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp"})
MOST = 256
"""Frames that are taken unless told how many: enough for any calibrator, and little enough for memory."""


def read_frames(path: Path, image: ImageSpec, images: int | None = None) -> list[NDArray[np.uint8]]:
    """Frames (H, W, C) uint8 as a camera would deliver them, mirrored up to the net's multiple.

    path: a folder of images (folders in it too), or an .npz with `frames` (N, H, W, C) uint8, as validation sets have
    them.  images: how many are asked for, at most `MOST` where None; they are taken evenly from first to last, names in
    order, for neighbours are often alike.
    Raises DataError for anything else, or fewer than asked; DeviceError without Pillow for a folder.
    """
    frames = _from_folder(path, image, images) if path.is_dir() else _from_file(path, images)
    return [_padded(frame, image.size_multiple) for frame in frames]


def _from_file(path: Path, images: int | None) -> list[NDArray[np.uint8]]:
    hint = "give a folder of images, or numpy.savez(path, frames=) with frames (N, H, W, C) uint8"
    frames = read_npz(path, ("frames",), error=DataError, hint=hint)["frames"]
    if frames.ndim != 4 or frames.dtype != np.uint8 or not frames[:1].size:
        raise DataError(f"{path}: frames are {frames.dtype} {list(frames.shape)}", hint)
    return [frames[index].astype(np.uint8, copy=False) for index in _spread(path, len(frames), images)]


def _from_folder(path: Path, image: ImageSpec, images: int | None) -> list[NDArray[np.uint8]]:
    try:
        from ..pictures import DecodeError, decode_image
    except ImportError as error:
        raise DeviceError(f"images need Pillow: {error}", "pip install pillow, or give an .npz of frames") from error
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
    if not files:
        raise DataError(f"{path} has no images", f"give files ending in {', '.join(sorted(_SUFFIXES))}")
    frames = []
    for index in _spread(path, len(files), images):
        try:
            pixels = decode_image(files[index])
        except DecodeError as error:
            raise DataError(error.message, "remove it, or restore it") from error
        frames.append(_grey(pixels) if image.channels == 1 else pixels)
    return frames


def _spread(path: Path, there: int, images: int | None) -> list[int]:
    """Which of `there` frames are taken. Raises DataError where fewer are there than are asked for."""
    if images is not None and there < images:
        raise DataError(f"{path} has {there} images, {images} were asked for", "ask for fewer, or give more")
    wanted = min(there, MOST) if images is None else images
    return [index * there // wanted for index in range(wanted)]


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB -> (H, W, 1), by brightness as Pillow and cameras weigh it (ITU-R 601)."""
    brightness = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return np.asarray((brightness + 0x8000) >> 16, np.uint8)[:, :, np.newaxis]


def _padded(frame: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    below, right = (-side % multiple for side in frame.shape[:2])
    return np.pad(frame, ((0, below), (0, right), (0, 0)), mode="symmetric") if below or right else frame
