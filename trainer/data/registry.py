"""From the recipe's data section to a data set: one builder per section type."""

from __future__ import annotations

from ..recipe_data import DataSpec, SegmentationFolderData, StareData, VesselsData
from .check import ReportProgress
from .samples import SegmentationData
from .segmentation_folder import build_segmentation_folder
from .stare import build_stare
from .vessels import build_vessels


def build_data(spec: DataSpec, seed: int, progress: ReportProgress | None = None) -> SegmentationData:
    """The data set a recipe asks for, with every file read and checked once.

    seed: chooses the images that are held out; the same seed makes the same choice.
    progress: called with (files read, files in all); without it a bar shows on stderr if the check takes long.
    Raises DataError naming the file or folder that does not fit.
    """
    if isinstance(spec, VesselsData):
        return build_vessels(spec, seed)
    if isinstance(spec, StareData):
        return build_stare(spec, seed, progress)
    if isinstance(spec, SegmentationFolderData):
        return build_segmentation_folder(spec, seed, progress)
