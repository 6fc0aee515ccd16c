"""Calibration frames from disk: a folder of images, or an NPZ file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import DataError, DeviceError, first_line
from edgeslim.runtime.manifest import ImageSpec

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp"})


def read_frames(path: Path, image: ImageSpec, images: int | None = None) -> list[NDArray[np.uint8]]:
    """Frames (H, W, C) uint8 as a camera would deliver them, mirrored up to the net's multiple.

    path: a folder, whose images are taken in the order of their names, or an .npz with `frames` (N, H, W, C) uint8, as
    validation sets have them.  images: how many are asked for, all where None.
    Raises DataError for anything else, or fewer than asked; DeviceError without Pillow for a folder.
    """
    frames = _from_folder(path, image, images) if path.is_dir() else _from_file(path)
    if images is not None and len(frames) < images:
        raise DataError(f"{path} has {len(frames)} frames, {images} were asked for", "ask for fewer, or give more")
    if not frames:
        raise DataError(f"{path} has no images", f"give files ending in {', '.join(sorted(_SUFFIXES))}")
    return [_padded(frame, image.size_multiple) for frame in frames[:images]]


def _from_file(path: Path) -> list[NDArray[np.uint8]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "frames" not in arrays.files:
                raise DataError(
                    f"{path} has no frames, only {sorted(arrays.files)}", "write it with frames=(N, H, W, C)"
                )
            frames = arrays["frames"]
    except DataError:
        raise
    except Exception as error:  # foreign bytes: what NumPy and zipfile raise on them is an open set
        raise DataError(
            f"{path} is no file of frames: {first_line(error)}",
            "give a folder of images, or numpy.savez(path, frames=...)",
        ) from error
    if frames.ndim != 4 or frames.dtype != np.uint8:
        raise DataError(f"{path}: frames are {frames.dtype} {list(frames.shape)}", "give (N, H, W, C) uint8")
    return list(frames)


def _from_folder(path: Path, image: ImageSpec, images: int | None) -> list[NDArray[np.uint8]]:
    try:
        from PIL import Image
    except ImportError as error:
        raise DeviceError(f"images need Pillow: {error}", "pip install pillow, or give an .npz of frames") from error
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    frames = []
    for file in files[:images]:
        try:
            with Image.open(file) as opened:
                pixels = np.asarray(opened.convert("L" if image.channels == 1 else "RGB"))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{file} is no image: {first_line(error)}", "remove it, or repair it") from error
        frames.append(pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels)
    return frames


def _padded(frame: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    below, right = (-side % multiple for side in frame.shape[:2])
    return np.pad(frame, ((0, below), (0, right), (0, 0)), mode="symmetric") if below or right else frame
