"""Other precisions of a bundle's model, and the frame sizes that engines are built for.

The bundle's model is fp32. A variant is the same net with its precision written into the graph (casts to float16,
quantise and dequantise nodes), in a file of its own. It is not equal to the model but close to it, and its record says
how close: the distance of its outputs on real frames, its scores on real validation data beside the model's, and how
closely an engine on a device must reproduce the golden vectors when it runs this variant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
MODEL = "fp32"
"""The name under which the bundle's own model is asked for, beside the names of its variants."""
FrameSize = tuple[int, int, int]
"""(frames in a batch, height, width)."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRange:
    """The batches that an engine must take, and the one that it is tuned for."""

    minimum: FrameSize
    optimum: FrameSize
    maximum: FrameSize

    def __post_init__(self) -> None:
        for axis, name in enumerate(("batch", "height", "width")):
            low, usual, high = self.minimum[axis], self.optimum[axis], self.maximum[axis]
            if not 1 <= low <= usual <= high:
                raise ValueError(f"frame range: {name} is {low} <= {usual} <= {high}, which must hold, from 1")

    def __contains__(self, size: object) -> bool:
        """Whether a batch (frames, height, width) lies in the range."""
        return (
            isinstance(size, tuple)
            and len(size) == 3
            and all(low <= n <= high for low, n, high in zip(self.minimum, size, self.maximum))
        )

    def __str__(self) -> str:
        """As `--frames` takes it: "1x192x192:1x192x192:4x192x192", or one size where all three are the same."""
        words = ["x".join(map(str, size)) for size in (self.minimum, self.optimum, self.maximum)]
        return words[0] if len(set(words)) == 1 else ":".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """How far a variant's outputs are from the model's, on the same real frames."""

    frames: int
    max_abs: float
    """Largest |a - b|, in the output's unit."""
    relative_rms: float
    """||a - b|| / ||b|| over all elements of all frames, the largest over the outputs."""

    def __post_init__(self) -> None:
        for name in ("max_abs", "relative_rms"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"deviation: {name} is {value}; it must be finite and at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupChoice:
    """What a measured search decided for one group of layers, and by which figures.

    Measured against the same net with this group alone in fp32.
    """

    group: str
    layers: tuple[str, ...]
    precision: Precision
    gain_ms: float | None
    """By how much the whole net was faster with the group in low precision; negative where it was slower."""
    gain_low_ms: float | None
    gain_high_ms: float | None
    """The interval of that figure."""
    loss: float | None
    """By how much the net's score was lower with the group in low precision; negative where it was higher."""
    reason: str

    def __post_init__(self) -> None:
        for name in ("gain_ms", "gain_low_ms", "gain_high_ms", "loss"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"group {self.group!r}: {name} is {value}; leave out what was not measured")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One further precision of the model."""

    name: str
    """As it is asked for: "fp16", "int8", or a name of one's own."""
    precision: Precision
    """The lowest one in the graph."""
    file: str
    """The typed ONNX file in the bundle."""
    placement: Literal["tensorrt", "onnxruntime"] | None = None
    """For which engine's fusions quantise and dequantise nodes were placed.

    ONNX Runtime computes either. TensorRT takes its own alone: it knows no zero points.
    """
    onnxruntime: bool = True
    """Whether ONNX Runtime reproduces it with all its own fusions; where not, it is for TensorRT alone."""
    output_dtype: Literal["float32", "float16"] = "float32"
    weight_bytes: int
    """Bytes of all initializers of the graph."""
    atol: float
    rtol: float
    """An engine running this variant agrees with a golden output b of the model where |a - b| <= atol + rtol * |b|."""
    relative_rms: float
    """And where ||a - b|| is at most this share of ||b||: rounding moves single elements far, but not their sum."""
    deviation: Deviation
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Scores on the validation images."""
    model_metrics: Mapping[str, float] = field(default_factory=dict)
    """Those of the fp32 model on the same images."""
    validation_images: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    """What it was made with: calibrator, images, corrections."""
    islands: Mapping[str, str] = field(default_factory=dict)
    """Nodes that were left in fp32 -> the reason."""
    search: tuple[GroupChoice, ...] = ()
    """Empty unless the groups were chosen by measurement."""

    def __post_init__(self) -> None:
        if not is_variant_name(self.name):
            raise ValueError(f"variant name {self.name!r}: give up to 40 of a-z, 0-9, . _ -, and not {MODEL!r}")
        if self.precision == MODEL:
            raise ValueError(f"variant {self.name!r} is said to be {MODEL}, which is the model itself")
        if self.weight_bytes < 0:
            raise ValueError(f"variant {self.name!r}: weight_bytes is {self.weight_bytes}; it must be at least 0")
        limits = (self.atol, self.rtol, self.relative_rms)
        if not all(math.isfinite(value) and value >= 0.0 for value in limits):
            raise ValueError(
                f"variant {self.name!r}: atol, rtol and relative_rms are {limits}; they must be finite and at least 0"
            )
        for name, value in (*self.metrics.items(), *self.model_metrics.items()):
            if not math.isfinite(value):
                raise ValueError(f"variant {self.name!r}: {name} is {value}; leave out what could not be computed")


def is_variant_name(name: str) -> bool:
    """True for up to 40 of a-z, 0-9, . _ -, a letter or digit first, that are not the model's own name."""
    return _NAME.fullmatch(name) is not None and name != MODEL


def runs_on(variant: Variant) -> str:
    """The engines that a variant is for, in words."""
    if not variant.onnxruntime:
        return "TensorRT"
    return "ONNX Runtime" if variant.placement == "onnxruntime" else "TensorRT, ONNX Runtime"


def made_with(variant: Variant) -> str:
    """A variant's settings in a line; hashes are for machines."""
    shown = (f"{name} {value}" for name, value in variant.settings.items() if not _HASH.fullmatch(value))
    return ", ".join(shown)
