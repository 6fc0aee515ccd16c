"""Data sets and the checks that keep bad files out: numpy and Pillow.

What needs torch stays behind its own name, so that reading a data set does not load it: `draws.CropDraws`,
`augment.Augment`.
"""

from .check import ReportProgress
from .decode import DecodeError, decode_image, decode_mask
from .registry import build_data
from .samples import Sample, Samples, SegmentationData
from .statistics import channel_statistics

__all__ = [
    "DecodeError",
    "ReportProgress",
    "Sample",
    "Samples",
    "SegmentationData",
    "build_data",
    "channel_statistics",
    "decode_image",
    "decode_mask",
]
