"""CIFAR-10 in its binary layout (Krizhevsky 2009):

    root/data_batch_1.bin ... data_batch_5.bin   root/test_batch.bin   or all of it in root/cifar-10-batches-bin/

A record is 3,073 bytes: the label, then the planes of red, green and blue, 32 x 32 each, row by row. Files hold any
number of records and are mapped into memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import DataError

from ..recipe_data import Cifar10Data
from .labelled import ClassificationData, LabelledImages, check_every_class
from .split import split_by_class

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE
FOLDER = "cifar-10-batches-bin"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordImages:
    """ImageSource of mapped files. files: each (records, 3073) uint8. starts: the number of each one's first record."""

    files: tuple[NDArray[np.uint8], ...]
    starts: NDArray[np.int64]
    prefix: str

    def image(self, index: int) -> NDArray[np.uint8]:
        """(32, 32, 3), from planes to pixels."""
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        planes = self.files[file][index - int(self.starts[file]), 1:].reshape(3, SIDE, SIDE)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))

    def name(self, index: int) -> str:
        """Prefix and number, counted through all files."""
        return f"{self.prefix}-{index:05d}"


def build_cifar10(spec: Cifar10Data, seed: int) -> ClassificationData:
    """Read and check the files. Raises DataError naming the one that does not fit."""
    root = spec.root / FOLDER if (spec.root / FOLDER).is_dir() else spec.root
    batches = sorted(root.glob("data_batch_*.bin"))
    if not batches:
        raise DataError(
            f"{root} has no data_batch_*.bin", f"give the folder that holds {FOLDER}; the Python version is not read"
        )
    train, test = _images(batches, "train"), _images([root / "test_batch.bin"], "test")
    check_every_class(train.labels, CLASSES, root)
    kept, held = split_by_class(train.labels, spec.validation, seed)
    return ClassificationData(
        train=train.select(kept),
        validation=train.select(held),
        test=test,
        classes=CLASSES,
        size=(SIDE, SIDE),
        channels=3,
    )


def _images(paths: list[Path], prefix: str) -> LabelledImages:
    files = tuple(read_records(path) for path in paths)
    starts = np.cumsum([0, *(len(file) for file in files[:-1])], dtype=np.int64)
    labels = np.concatenate([np.array(file[:, 0]) for file in files])
    return LabelledImages(RecordImages(files=files, starts=starts, prefix=prefix), labels)


def read_records(path: Path) -> NDArray[np.uint8]:
    """The records of a file, mapped: (records, 3073). Raises DataError for part of a record or a label above 9."""
    try:
        size = path.stat().st_size
        if size == 0 or size % RECORD:
            raise DataError(
                f"{path} has {size} bytes; allowed is a whole number of records of {RECORD}",
                "the file is cut off, or of another layout (CIFAR-100 has records of 3074)",
            )
        records = np.memmap(path, np.uint8, mode="r", shape=(size // RECORD, RECORD))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "check data.root") from error
    labels = np.array(records[:, 0])
    if labels.max() >= len(CLASSES):
        place = int((labels >= len(CLASSES)).argmax())
        raise DataError(
            f"{path}: label {labels[place]} in record {place}; allowed are 0 to {len(CLASSES) - 1}",
            "the file is damaged, or of another layout",
        )
    return records
