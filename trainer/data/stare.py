"""STARE: 20 retinal photographs with vessels drawn by hand by two observers (Hoover 2000).

    root/images/*.png   root/manual_ah/*.png   root/manual_vk/*.png   root/mask/*.png (field of view)

There is no official split. As is usual, the first images in name order train and the rest test. Pixels outside of the
field of view are unlabelled: a camera's black border says nothing about vessels.
"""

from __future__ import annotations

from ..recipe_data import StareData
from .check import ReportProgress, unheard
from .field_of_view import split_in_order
from .pairs import list_images, pair_files
from .samples import SegmentationData


def build_stare(spec: StareData, seed: int, report: ReportProgress = unheard) -> SegmentationData:
    """Read and check STARE. Raises DataError naming the file or folder that does not fit."""
    images = list_images(spec.root / "images")
    pairs = pair_files(images, list_images(spec.root / f"manual_{spec.observer}"))
    fields_of_view = list_images(spec.root / "mask")
    pair_files(images, fields_of_view)
    return split_in_order(spec, pairs, fields_of_view, seed, report)
