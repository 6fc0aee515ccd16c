"""STARE: 20 retinal photographs with vessels drawn by hand by two observers (Hoover 2000).

    root/images/*.png   root/manual_ah/*.png   root/manual_vk/*.png   root/mask/*.png (field of view)

There is no official split. As is usual, the first images in name order train and the rest test. Pixels outside of the
field of view are unlabelled: a camera's black border says nothing about vessels.
"""

from __future__ import annotations

from edgeslim.errors import DataError

from ..recipe_data import StareData
from .check import ReportProgress, check_labels, check_samples, unheard
from .field_of_view import CLASSES, IGNORE_INDEX, FieldOfViewLoader
from .pairs import PairLoader, list_images, pair_files
from .samples import Samples, SegmentationData
from .split import split_indices


def build_stare(spec: StareData, seed: int, report: ReportProgress = unheard) -> SegmentationData:
    """Read and check STARE. Raises DataError naming the file or folder that does not fit."""
    images = list_images(spec.root / "images")
    pairs = pair_files(images, list_images(spec.root / f"manual_{spec.observer}"))
    fields_of_view = list_images(spec.root / "mask")
    pair_files(images, fields_of_view)
    if spec.train >= len(pairs):
        raise DataError(
            f"{spec.root}: data.train is {spec.train} of {len(pairs)} images, so none is left to test on",
            f"data.train is at most {len(pairs) - 1}",
        )
    vessels = PairLoader(pairs=pairs, classes=len(CLASSES), ignore_index=IGNORE_INDEX, binary=True)
    samples = Samples(pairs, FieldOfViewLoader(vessels=vessels, fields_of_view=fields_of_view))
    train = check_samples(samples[: spec.train], spec.on_error, report)
    test = check_samples(samples[spec.train :], spec.on_error, report)
    check_labels(train, CLASSES, IGNORE_INDEX)
    kept, held = split_indices(len(train.samples), spec.validation, seed)
    return SegmentationData(
        train=train.samples.select(kept),
        validation=train.samples.select(held),
        test=test.samples,
        classes=CLASSES,
        ignore_index=IGNORE_INDEX,
        skipped=train.skipped + test.skipped,
    )
