"""CamVid in SegNet's layout: 701 frames of a car's camera, 480 x 360, eleven classes (Brostow 2008).

    root/train/*.png|jpg   root/trainannot/*.png      367      the same base names on both sides
    root/val/              root/valannot/             101      the validation set, so `data.validation` is not used
    root/test/             root/testannot/            233

A mask's pixel is a class id; 11 is void, which counts nowhere. `data.size` makes all frames smaller, scored ones too.
"""

from __future__ import annotations

from ..recipe_data import CamvidData
from .check import Checked, ReportProgress, check_labels, check_samples, unheard
from .pairs import PairLoader, list_images, pair_files
from .samples import Samples, SegmentationData

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
IGNORE_INDEX = 11


def build_camvid(spec: CamvidData, seed: int, report: ReportProgress = unheard) -> SegmentationData:
    """Read and check CamVid; its split is its own. Raises DataError naming the file or folder that does not fit."""
    train, validation, test = (_checked(spec, part, report) for part in ("train", "val", "test"))
    return SegmentationData(
        train=train.samples,
        validation=validation.samples,
        test=test.samples,
        classes=CLASSES,
        ignore_index=IGNORE_INDEX,
        absent=check_labels(train, CLASSES, IGNORE_INDEX),
        skipped=train.skipped + validation.skipped + test.skipped,
    )


def _checked(spec: CamvidData, part: str, report: ReportProgress) -> Checked:
    pairs = pair_files(list_images(spec.root / part), list_images(spec.root / f"{part}annot"))
    load = PairLoader(pairs=pairs, classes=len(CLASSES), ignore_index=IGNORE_INDEX, size=spec.size)
    return check_samples(Samples(pairs, load), spec.on_error, report)
