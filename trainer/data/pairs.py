"""Images and masks that belong together because their files have the same base name.

A pair is checked whenever it is decoded: equal sizes, and no mask value that is neither a class nor `ignore_index`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeslim.errors import DataError

from .decode import decode_image, decode_mask
from .samples import Sample

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_NAMED = 5  # how many files a message lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The files of one sample."""

    image: Path
    mask: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLoader:
    """Loader of `Samples`. Raises DataError (DecodeError for a damaged file) naming the file.

    size: (height, width) that image and mask are resized to, by area and to the nearest pixel; None leaves them.
    """

    pairs: Mapping[str, Pair]
    classes: int
    ignore_index: int
    binary: bool = False
    size: tuple[int, int] | None = None

    def __call__(self, name: str) -> Sample:
        pair = self.pairs[name]
        image = decode_image(pair.image)
        mask = decode_mask(pair.mask, self.binary)
        check_sizes(pair.image, image.shape[:2], pair.mask, mask.shape)
        self._check_values(pair.mask, mask)
        labels = mask.astype(np.uint8)
        if self.size is not None:
            image = _resized(image, self.size, Image.Resampling.BOX)
            labels = _resized(labels, self.size, Image.Resampling.NEAREST)
        return Sample(image=image, mask=labels, name=name)

    def _check_values(self, path: Path, mask: NDArray[np.int64]) -> None:
        wrong = ((mask < 0) | (mask >= self.classes)) & (mask != self.ignore_index)
        if not wrong.any():
            return
        row, column = (int(i[0]) for i in np.nonzero(wrong))
        values = np.unique(mask[wrong])
        hint = "relabel the mask, or name the missing class in data.classes"
        if self.classes == 2 and len(np.unique(mask)) == 2:
            hint = "two values only: data.mask: binary reads zero as the first class and the rest as the second"
        raise DataError(
            f"{path}: mask value {mask[row, column]} at row {row}, column {column}; allowed are 0 to "
            f"{self.classes - 1} and {self.ignore_index} for unlabelled (found {_listed(map(str, values))})",
            hint,
        )


def _resized(array: NDArray[np.uint8], size: tuple[int, int], how: Image.Resampling) -> NDArray[np.uint8]:
    """(H, W, ...) -> (*size, ...)."""
    return np.array(Image.fromarray(array).resize(size[::-1], how))


def check_sizes(image: Path, image_size: tuple[int, ...], mask: Path, mask_size: tuple[int, ...]) -> None:
    """Raise DataError unless the two (height, width) are equal."""
    if image_size != mask_size:
        raise DataError(
            f"{mask} is {mask_size[1]}x{mask_size[0]} but its image {image} is "
            f"{image_size[1]}x{image_size[0]} (width x height)",
            "make both the same size",
        )


def list_images(folder: Path, suffixes: Collection[str] = SUFFIXES) -> dict[str, Path]:
    """The picture files directly in `folder`, base name -> path, in name order.

    suffixes: of pictures, in lower case.
    Raises DataError if the folder is missing or has none, or if two files share a base name.
    """
    try:
        files = sorted(f for f in folder.iterdir() if not f.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"data folder {folder} cannot be read: {error.strerror}",
            f"check data.root; a relative path starts at {Path.cwd()}",
        ) from error
    found: dict[str, Path] = {}
    for file in files:
        if file.suffix.lower() not in suffixes or not file.is_file():
            continue
        if file.stem in found:
            raise DataError(
                f"{found[file.stem]} and {file} have the same base name, so their partner is unclear", "remove one"
            )
        found[file.stem] = file
    if not found:
        raise DataError(f"data folder {folder} has no images", f"edgeslim reads {', '.join(suffixes)}")
    return found


def pair_files(images: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[str, Pair]:
    """Join two folders by base name. Raises DataError naming what has no partner on the other side."""
    problems = [
        f"{len(orphans)} {kind} without {partner}: {_listed(orphans)}"
        for kind, partner, orphans in (
            ("images", "mask", [p.name for n, p in images.items() if n not in masks]),
            ("masks", "image", [p.name for n, p in masks.items() if n not in images]),
        )
        if orphans
    ]
    if problems:
        folder = os.path.commonpath([next(iter(side.values())).parent for side in (images, masks)])
        raise DataError(
            f"{folder}: {len(images)} images and {len(masks)} masks do not pair: {'; '.join(problems)}",
            "an image and its mask have the same base name",
        )
    return {name: Pair(image=images[name], mask=masks[name]) for name in images}


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
