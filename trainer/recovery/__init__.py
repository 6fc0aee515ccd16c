"""What makes up for a cut without training."""

from .held_out import FEWEST_INPUTS, Part, image_batches, of_part
from .least_squares import Correction
from .recover import METHODS, Gain, Recovery, check_methods, distance, recover
from .settle import settle

__all__ = [
    "FEWEST_INPUTS",
    "METHODS",
    "Correction",
    "Gain",
    "Part",
    "Recovery",
    "check_methods",
    "distance",
    "image_batches",
    "of_part",
    "recover",
    "settle",
]
