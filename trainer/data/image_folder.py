"""One folder a class:

    root/cat/*.png|jpg|bmp|tif        root/dog/...                            and so on, in name order
    root/train/cat/...                root/test/cat/...                       optional: the test set

Images come in any size; each is resized until it covers the recipe's size, and its middle is cut out. They are decoded
once before training, to be sure of them, and kept while they fit into the cache; what does not fit is decoded anew each
time. Paths are held as one array of bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeslim.errors import DataError

from ..recipe_data import ImageFolderData
from .check import ReportProgress, none_usable, unheard
from .decode import DecodeError, decode_image
from .labelled import ClassificationData, LabelledImages, check_every_class
from .pairs import SUFFIXES
from .samples import CACHE_BYTES
from .split import split_by_class


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FolderImages:
    """ImageSource of files. paths: (n,) bytes, below `root`. kept: (m, h, w, channels), the first m once `filled`."""

    root: Path
    paths: NDArray[np.bytes_]
    kept: NDArray[np.uint8]
    filled: NDArray[np.bool_]

    def image(self, index: int) -> NDArray[np.uint8]:
        """Out of the cache, or decoded. Raises DataError for a file that is no image."""
        if index < len(self.kept) and self.filled[index]:
            return np.array(self.kept[index])
        height, width, channels = self.kept.shape[1:]
        image = fitted(decode_image(self.root / self.name(index)), (height, width), grey=channels == 1)
        if index < len(self.kept):
            self.kept[index], self.filled[index] = image, True
        return image

    def name(self, index: int) -> str:
        """The path below the root."""
        return os.fsdecode(bytes(self.paths[index]))


def build_image_folder(spec: ImageFolderData, seed: int, report: ReportProgress = unheard) -> ClassificationData:
    """Read and check the folders. Raises DataError naming the file or folder that does not fit."""
    train_root = spec.root / "train" if (spec.root / "train").is_dir() else spec.root
    split = train_root != spec.root
    classes = _folders(train_root)
    if len(classes) < 2:
        raise DataError(f"{train_root} has {len(classes)} folders; a class is a folder, and two are the least")
    train, skipped = _read(train_root, classes, spec, report)
    check_every_class(train.labels, classes, train_root)
    if split and (spec.root / "test").is_dir():
        strange = sorted(set(_folders(spec.root / "test")) - set(classes))
        if strange:
            raise DataError(
                f"{spec.root / 'test' / strange[0]} is no class of the training images",
                f"they are {', '.join(classes)}",
            )
        test, more = _read(spec.root / "test", classes, spec, report)
        skipped += more
    else:
        kept, held = split_by_class(train.labels, spec.test, seed, "the test set")
        train, test = train.select(kept), train.select(held)
    kept, held = split_by_class(train.labels, spec.validation, seed)
    return ClassificationData(
        train=train.select(kept),
        validation=train.select(held),
        test=test,
        classes=classes,
        size=spec.size,
        channels=spec.channels,
        skipped=skipped,
    )


def fitted(image: NDArray[np.uint8], size: tuple[int, int], grey: bool = False) -> NDArray[np.uint8]:
    """The middle of an image (H, W, 3) that was resized to just cover `size`: (*size, 3), or (*size, 1) if `grey`."""
    height, width = size
    picture = Image.fromarray(image)
    if grey:
        picture = picture.convert("L")
    scale = max(height / picture.height, width / picture.width)
    # Only what is seen is resized: a picture one pixel high would need `height` times its width otherwise.
    sides = min(picture.width, width / scale), min(picture.height, height / scale)
    left, top = (picture.width - sides[0]) / 2, (picture.height - sides[1]) / 2
    if scale == 1.0:
        left, top = left // 1, top // 1
    box = (left, top, left + sides[0], top + sides[1])
    found = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box), np.uint8)
    return found.reshape(height, width, 1 if grey else 3)


def _folders(root: Path) -> tuple[str, ...]:
    try:
        with os.scandir(root) as entries:
            return tuple(sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".")))
    except OSError as error:
        raise DataError(
            f"data folder {root} cannot be read: {error.strerror}",
            f"check data.root; a relative path starts at {Path.cwd()}",
        ) from error


def _read(
    root: Path, classes: tuple[str, ...], spec: ImageFolderData, report: ReportProgress
) -> tuple[LabelledImages, tuple[str, ...]]:
    """All images below `root`, decoded once, and the files left out."""
    found, skipped = [], []
    for name in classes:
        files, strange = _files(root / name)
        if strange and spec.on_error == "raise":
            raise DataError(
                f"{strange[0]} is no image: its name ends in {strange[0].suffix or 'nothing'}; allowed are "
                f"{', '.join(SUFFIXES)}",
                "remove it, or leave such files out with on_error: skip",
            )
        skipped += [str(path) for path in strange]
        found.append(np.array([os.fsencode(f"{name}/{file}") for file in files], np.bytes_))
    labels = np.repeat(np.arange(len(classes), dtype=np.uint16), [len(part) for part in found])
    paths = np.concatenate(found)
    shape = (*spec.size, spec.channels)
    room = min(len(paths), CACHE_BYTES // int(np.prod(shape)))
    source = FolderImages(root=root, paths=paths, kept=np.empty((room, *shape), np.uint8), filled=np.zeros(room, bool))
    good = np.ones(len(paths), bool)
    for index in range(len(paths)):
        try:
            source.image(index)
        except DecodeError as error:
            if spec.on_error == "raise":
                raise
            good[index] = False
            skipped.append(str(error.path))
        report(index + 1, len(paths))
    if not good.any():
        raise none_usable(len(paths), skipped[-len(paths)])
    return LabelledImages(source, labels, np.flatnonzero(good)), tuple(skipped)


def _files(folder: Path) -> tuple[list[str], list[Path]]:
    """Names of the images in a class's folder, and what else lies there. Raises DataError if there is no image."""
    images: list[str] = []
    strange: list[Path] = []
    if folder.is_dir():
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            if entry.name.startswith("."):
                continue
            if entry.is_file() and os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                images.append(entry.name)
            else:
                strange.append(folder / entry.name)
    if not images:
        raise DataError(f"{folder} has no images: the class is empty", f"edgeslim reads {', '.join(SUFFIXES)}")
    return images, strange
