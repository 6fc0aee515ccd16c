"""Data sets and the checks that keep bad files out: numpy and Pillow.

What needs torch stays behind its own name, so that reading a data set does not load it: `draws.CropDraws`,
`augment.Augment`.
"""

from .check import ReportProgress
from .decode import DecodeError, decode_image, decode_mask
from .labelled import ClassificationData, LabelledImage, LabelledImages
from .registry import Data, build_data
from .samples import Sample, Samples, SegmentationData
from .statistics import channel_statistics, image_statistics

__all__ = [
    "ClassificationData",
    "Data",
    "DecodeError",
    "LabelledImage",
    "LabelledImages",
    "ReportProgress",
    "Sample",
    "Samples",
    "SegmentationData",
    "build_data",
    "channel_statistics",
    "decode_image",
    "decode_mask",
    "image_statistics",
]
