"""The verb: a float32 graph and calibration images -> the same graph with int8 weights and Q/DQ pairs.

opset -> [equalise] -> place -> measure ranges -> insert -> [correct bias]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeslim.errors import UnsupportedGraphError

from ..calibration import Calibration
from ..deviation import measure_deviation
from ..typed import with_shapes
from .bias import correct_bias, images_within
from .equalize import Equalization, equalize
from .for_onnxruntime import place_for_onnxruntime
from .for_tensorrt import place_for_tensorrt
from .histograms import Histogram, measure_histograms
from .insert import insert
from .layers import Declined, find_layers
from .opset import raise_opset
from .options import Int8Options
from .placement import Placement
from .scales import LEVELS, Scale, signed_scale, unsigned_scale
from .thresholds import cut_range

OPSET = 13
"""The first one whose QuantizeLinear and DequantizeLinear know a scale per channel."""


_BYTES = 1 << 30
"""Of values that a bias correction holds together."""
_JUDGES = 64
"""Images at most on which a bias correction is judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What correcting biases did. before, after: relative rms of the net's outputs against float.

    shifts: by a layer's output, the largest change of its bias, relative to the rms of its channels' means.
    """

    model: ir.Model
    shifts: dict[str, float]
    before: float
    after: float

    @property
    def kept(self) -> bool:
        """Whether the net came nearer. Where ranges are cut, what is cut off has a mean too, and the rest pays."""
        return self.after < self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """model: typed. layers: weights that are int8 now. declined: what stays in float and why.

    scales: of activations, by value.
    """

    model: ir.Model
    layers: tuple[str, ...]
    declined: tuple[Declined, ...]
    scales: dict[str, Scale]
    equalization: Equalization | None
    correction: Correction | None


def quantize(model: ir.Model, calibration: Calibration, options: Int8Options | None = None) -> Quantized:
    """Make `model` int8. It keeps its inputs, its outputs, and the names of its values.

    Raises UnsupportedGraphError where no layer can be quantised, DataError where the net does not run on the
    calibration images.
    """
    options = options or Int8Options()
    model = raise_opset(with_shapes(model), OPSET, calibration)
    equalization = equalize(model, options.keep_float) if options.equalize else None
    graph = equalization.model if equalization is not None else model
    placement, declined = _place(graph, options)
    histograms = measure_histograms(graph, list(placement.values), calibration, options.bins)
    scales = find_scales(placement, histograms, options)
    quantized = insert(graph, placement, scales, options.stores_int8)
    correction = None
    if options.correct_bias:
        correction = _corrected(graph, quantized, placement, calibration, options)
        quantized = correction.model if correction.kept else quantized
    return Quantized(
        model=quantized,
        layers=tuple(layer.name for layer in placement.layers),
        declined=tuple(declined),
        scales=scales,
        equalization=equalization,
        correction=correction,
    )


def _corrected(
    model: ir.Model, quantized: ir.Model, placement: Placement, calibration: Calibration, options: Int8Options
) -> Correction:
    """The graph with other biases, and whether it is nearer to the float one on images that took no part."""
    spared = len(calibration.feeds) // 5
    held = images_within(model, placement.layers, calibration, _BYTES)
    fitted = min(options.bias_images, held, len(calibration.feeds) - spared)
    judged = calibration.part(fitted, fitted + _JUDGES) if spared else calibration
    corrected, shifts = correct_bias(model, quantized, placement.layers, calibration.part(0, fitted))
    before, after = (_distance(model, graph, judged) for graph in (quantized, corrected))
    return Correction(model=corrected, shifts=shifts, before=before, after=after)


def _distance(model: ir.Model, variant: ir.Model, frames: Calibration) -> float:
    """The mean over outputs of ||variant - float|| / ||float||."""
    return float(np.mean([d.relative_rms for d in measure_deviation(model, variant, frames)]))


def _place(model: ir.Model, options: Int8Options) -> tuple[Placement, list[Declined]]:
    layers, declined = find_layers(model, options.keep_float)
    unknown = options.keep_float - {v for v in model.graph.initializers}
    if unknown:
        raise UnsupportedGraphError(
            f"keep_float names {sorted(unknown)[0]!r}, which is no weight of this graph",
            f"name initializers that layers read, as {' or '.join(sorted(layer.name for layer in layers)[:3]) or 'w'}",
        )
    if options.placement == "onnxruntime":
        placement, more = place_for_onnxruntime(model, layers, options.quantize_outputs)
        declined = [*declined, *more]
    else:
        placement = place_for_tensorrt(model, layers)
    if not placement.layers:
        reasons = "; ".join(f"{d.where}: {d.reason}" for d in declined[:3]) or "it has no convolution and no product"
        raise UnsupportedGraphError(f"nothing in this net can be int8: {reasons}", "ship it in float16 or float32")
    return placement, declined


def find_scales(placement: Placement, histograms: dict[str, Histogram], options: Int8Options) -> dict[str, Scale]:
    """A scale for every value of a placement; values that share one take the widest of their ranges."""
    ranges = {}
    for name in placement.values:
        one_sided = histograms[name].low >= 0 and not placement.signed
        ranges[name] = cut_range(histograms[name], 255 if one_sided else LEVELS, options)
    for group in placement.shared:
        widest = min(ranges[n][0] for n in group), max(ranges[n][1] for n in group)
        ranges.update((name, widest) for name in group)
    make = signed_scale if placement.signed else unsigned_scale
    return {name: make(low, high) for name, (low, high) in ranges.items()}
