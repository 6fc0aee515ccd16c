"""Retinal photographs whose round field of view is given as a picture of its own.

Pixels outside of it are unlabelled: a camera's black border says nothing about vessels. Sets of such photographs that
come without a split are split here alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeslim.errors import DataError

from ..recipe_data import ChaseData, StareData
from .check import ReportProgress, check_labels, check_samples
from .decode import decode_mask
from .pairs import Pair, PairLoader, check_sizes
from .samples import Sample, Samples, SegmentationData
from .split import split_indices

CLASSES = ("background", "vessel")
IGNORE_INDEX = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldOfViewLoader:
    """Loader of `Samples`: image and one observer's vessels, unlabelled outside of the field of view.

    Without an entry in `fields_of_view` the whole image is labelled.
    """

    vessels: PairLoader
    fields_of_view: Mapping[str, Path]

    def __call__(self, name: str) -> Sample:
        sample = self.vessels(name)
        path = self.fields_of_view.get(name)
        if path is None:
            return sample
        inside = decode_mask(path, binary=True)
        check_sizes(self.vessels.pairs[name].image, sample.mask.shape, path, inside.shape)
        mask = np.where(inside == 1, sample.mask, np.uint8(IGNORE_INDEX))
        return Sample(image=sample.image, mask=mask, name=name)


def split_in_order(
    spec: StareData | ChaseData,
    pairs: Mapping[str, Pair],
    fields_of_view: Mapping[str, Path],
    seed: int,
    report: ReportProgress,
) -> SegmentationData:
    """A set without an official split: the first `spec.train` images in name order train, the rest test.

    Raises DataError where none is left to test on, and for any file that does not fit.
    """
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
