"""Any data set kept as folders of pictures:

    root/images/*.png|jpg|bmp|tif    root/masks/<same base names>
    root/test/images/...             root/test/masks/...             optional: the test set
    root/train/images/...            root/train/masks/...            optional, instead of images/ and masks/ in the root

Where there is no test/, a share chosen by seed is held out. Validation images always come out of the training part.
"""

from __future__ import annotations

from pathlib import Path

from edgeslim.errors import DataError

from ..recipe_data import SegmentationFolderData
from .check import Checked, ReportProgress, check_labels, check_samples, unheard
from .pairs import PairLoader, list_images, pair_files
from .samples import Samples, SegmentationData
from .split import split_indices


def build_segmentation_folder(
    spec: SegmentationFolderData, seed: int, report: ReportProgress = unheard
) -> SegmentationData:
    """Read and check the folder. Raises DataError naming the file or folder that does not fit."""
    flat, train_root, test_root = spec.root / "images", spec.root / "train", spec.root / "test"
    if flat.is_dir() and train_root.is_dir():
        raise DataError(f"{spec.root} has both images/ and train/", "keep one of them: which trains is unclear")
    checked = _checked(train_root if train_root.is_dir() else spec.root, spec, report)
    binary = f"if {spec.ignore_index} marks the second class, set data.mask: binary"
    absent = check_labels(checked, spec.classes, spec.ignore_index, binary)
    train, skipped = checked.samples, checked.skipped
    if test_root.is_dir():
        checked = _checked(test_root, spec, report)
        test, skipped = checked.samples, skipped + checked.skipped
    else:
        kept, held = split_indices(len(train), spec.test, seed, "the test set")
        train, test = train.select(kept), train.select(held)
    kept, held = split_indices(len(train), spec.validation, seed)
    return SegmentationData(
        train=train.select(kept),
        validation=train.select(held),
        test=test,
        classes=spec.classes,
        ignore_index=spec.ignore_index,
        absent=absent,
        skipped=skipped,
    )


def _checked(root: Path, spec: SegmentationFolderData, report: ReportProgress) -> Checked:
    pairs = pair_files(list_images(root / "images"), list_images(root / "masks"))
    load = PairLoader(
        pairs=pairs, classes=len(spec.classes), ignore_index=spec.ignore_index, binary=spec.mask == "binary"
    )
    return check_samples(Samples(pairs, load), spec.on_error, report)
