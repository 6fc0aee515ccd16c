"""Precision that lives in the graph: float16 with islands, int8 with Q/DQ, and how far either is from float32."""

from .calibration import Calibration, Sample, open_calibration
from .deviation import OutputDeviation, measure_deviation
from .fp16 import Fp16Options, Halved, to_float16
from .int8 import Int8Options, Quantized, find_layers, quantize
from .islands import Island, Limits
from .layers import LayerComparison, LayerDeviation, compare_layers, compared_values
from .simulate import Outputs, simulate

__all__ = [
    "Calibration",
    "Fp16Options",
    "Halved",
    "Int8Options",
    "Island",
    "LayerComparison",
    "LayerDeviation",
    "Limits",
    "OutputDeviation",
    "Outputs",
    "Quantized",
    "Sample",
    "compare_layers",
    "compared_values",
    "find_layers",
    "measure_deviation",
    "open_calibration",
    "quantize",
    "simulate",
    "to_float16",
]
