"""Int8 in the graph: what may be chosen, and the verb."""

from .equalize import Equalization, equalize
from .layers import Declined, Layer, find_layers
from .options import METHODS, PLACEMENTS, Int8Options
from .quantize import Correction, Quantized, quantize
from .scales import Scale

__all__ = [
    "METHODS",
    "PLACEMENTS",
    "Correction",
    "Declined",
    "Equalization",
    "Int8Options",
    "Layer",
    "Quantized",
    "Scale",
    "equalize",
    "find_layers",
    "quantize",
]
