"""CHASE_DB1: 28 retinal photographs of 14 children, vessels drawn by two observers (Fraz 2012), as distributed.

    root/Image_01L.jpg   root/Image_01L_1stHO.png   root/Image_01L_2ndHO.png      01 to 14, L and R
    root/mask/Image_01L.png                                                       optional: the field of view

There is no official split. As is usual, the first 20 images in name order train and the last 8 test. CHASE_DB1 itself
comes without fields of view; where somebody has added a folder mask/, pixels outside of them are unlabelled.
"""

from __future__ import annotations

from pathlib import Path

from edgeslim.errors import DataError

from ..recipe_data import ChaseData
from .check import ReportProgress, unheard
from .field_of_view import split_in_order
from .pairs import SUFFIXES, list_images, pair_files
from .samples import SegmentationData

_OBSERVERS = ("_1stHO", "_2ndHO")


def build_chase(spec: ChaseData, seed: int, report: ReportProgress = unheard) -> SegmentationData:
    """Read and check CHASE_DB1. Raises DataError naming the file or folder that does not fit."""
    files = list_images(spec.root)
    images = {name: path for name, path in files.items() if not name.endswith(_OBSERVERS)}
    ending = f"_{spec.observer}"
    drawn = {name.removesuffix(ending): path for name, path in files.items() if name.endswith(ending)}
    if not images or not drawn:
        lacking = f"pictures Image_01L{ending}.png" if images else "photographs Image_01L.jpg"
        raise DataError(f"{spec.root} has no {lacking}", "give the folder that CHASE_DB1 was unpacked into")
    pairs = pair_files(images, drawn)
    return split_in_order(spec, pairs, _fields(spec.root / "mask", images), seed, report)


def _fields(folder: Path, images: dict[str, Path]) -> dict[str, Path]:
    """The fields of view by image, or none."""
    if not folder.is_dir():
        return {}
    found = {name.removesuffix("_mask"): path for name, path in list_images(folder, (*SUFFIXES, ".gif")).items()}
    pair_files(images, found)
    return found
