"""DRIVE: 40 retinal photographs in two halves (Staal 2004), as they are distributed.

    root/training/images/21_training.tif   .../1st_manual/21_manual1.gif   .../mask/21_training_mask.gif
    root/test/images/01_test.tif           .../1st_manual/01_manual1.gif   .../mask/01_test_mask.gif

What belongs together begins with the same number. Copies whose test/ has no 1st_manual (the challenge keeps it back)
can hold out training images instead.
"""

from __future__ import annotations

from pathlib import Path

from edgeslim.errors import DataError

from ..recipe_data import DriveData
from .check import ReportProgress, check_labels, check_samples, unheard
from .field_of_view import CLASSES, IGNORE_INDEX, FieldOfViewLoader
from .pairs import SUFFIXES, PairLoader, list_images, pair_files
from .samples import Samples, SegmentationData
from .split import split_indices

_WITH_GIF = (*SUFFIXES, ".gif")


def build_drive(spec: DriveData, seed: int, report: ReportProgress = unheard) -> SegmentationData:
    """Read and check DRIVE. Raises DataError naming the file or folder that does not fit."""
    checked = check_samples(_samples(spec.root / "training"), spec.on_error, report)
    train, skipped = checked.samples, checked.skipped
    check_labels(checked, CLASSES, IGNORE_INDEX)
    if spec.test is None:
        if (spec.root / "test" / "images").is_dir() and not (spec.root / "test" / "1st_manual").is_dir():
            raise DataError(
                f"{spec.root / 'test'} has images/ but no 1st_manual/: nothing to test against",
                "data.test: 5 makes the last five training images the test set",
            )
        checked = check_samples(_samples(spec.root / "test"), spec.on_error, report)
        test, skipped = checked.samples, skipped + checked.skipped
    else:
        if spec.test >= len(train):
            raise DataError(
                f"{spec.root}: data.test is {spec.test} of {len(train)} training images, so none is left to train on",
                f"data.test is at most {len(train) - 1}",
            )
        train, test = train[: -spec.test], train[-spec.test :]
    kept, held = split_indices(len(train), spec.validation, seed)
    return SegmentationData(
        train=train.select(kept),
        validation=train.select(held),
        test=test,
        classes=CLASSES,
        ignore_index=IGNORE_INDEX,
        skipped=skipped,
    )


def _samples(root: Path) -> Samples:
    images, vessels = _by_number(root / "images"), _by_number(root / "1st_manual")
    pairs = pair_files(images, vessels)
    fields = _by_number(root / "mask") if (root / "mask").is_dir() else {}
    if fields:
        pair_files(images, fields)
    load = PairLoader(pairs=pairs, classes=len(CLASSES), ignore_index=IGNORE_INDEX, binary=True)
    return Samples(pairs, FieldOfViewLoader(vessels=load, fields_of_view=fields))


def _by_number(folder: Path) -> dict[str, Path]:
    """The pictures in `folder` by the number their names begin with."""
    found: dict[str, Path] = {}
    for name, path in list_images(folder, _WITH_GIF).items():
        number = name.partition("_")[0]
        if not number.isdigit():
            raise DataError(f"{path}: the name does not begin with a number", "as in 21_training.tif")
        if number in found:
            raise DataError(f"{found[number]} and {path} have the same number {number}", "remove one")
        found[number] = path
    return found
