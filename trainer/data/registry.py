"""From the recipe's data section to a data set: one builder per section type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..recipe_data import (
    CamvidData,
    ChaseData,
    Cifar10Data,
    DataSpec,
    DriveData,
    ImageFolderData,
    MnistData,
    SegmentationFolderData,
    StareData,
    VesselsData,
)
from .camvid import build_camvid
from .chase import build_chase
from .check import ReportProgress, unheard
from .cifar10 import build_cifar10
from .drive import build_drive
from .image_folder import build_image_folder
from .labelled import ClassificationData
from .mnist import build_mnist
from .samples import SegmentationData
from .segmentation_folder import build_segmentation_folder
from .stare import build_stare
from .vessels import build_vessels

Data = SegmentationData | ClassificationData

_ARRAYS: Mapping[type, Callable[[Any, int], Data]] = {
    VesselsData: build_vessels,
    MnistData: build_mnist,
    Cifar10Data: build_cifar10,
}
"""Sets without a file an image: nothing to wait for."""
_FILES: Mapping[type, Callable[[Any, int, ReportProgress], Data]] = {
    StareData: build_stare,
    ChaseData: build_chase,
    DriveData: build_drive,
    CamvidData: build_camvid,
    SegmentationFolderData: build_segmentation_folder,
    ImageFolderData: build_image_folder,
}


def build_data(spec: DataSpec, seed: int, report: ReportProgress = unheard) -> Data:
    """The data set a recipe asks for, with every file read and checked once.

    seed: chooses the images that are held out; the same seed makes the same choice.
    report: called with (files read, files in all), where a set has a file an image.
    Raises DataError naming the file or folder that does not fit.
    """
    if type(spec) in _ARRAYS:
        return _ARRAYS[type(spec)](spec, seed)
    return _FILES[type(spec)](spec, seed, report)
