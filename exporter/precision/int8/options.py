"""What may be chosen about int8, checked where it is written down."""

from __future__ import annotations

from dataclasses import dataclass

from edgeslim.errors import ConfigError

METHODS = ("minmax", "entropy", "percentile", "mse")
PLACEMENTS = ("tensorrt", "onnxruntime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Options:
    """placement: the engine whose fusions Q/DQ are placed for. method: what ranges of activations are taken from.

    percentile: of absolute values, for that method. bins: of the histograms. equalize: across layers, before anything
    is quantised. correct_bias: afterwards, on at most `bias_images` calibration images, which are held in memory
    together, and on fewer where they are large. quantize_outputs: the graph's outputs too, for ONNX Runtime alone.
    keep_float: weights (initializers) whose layers stay as they are. int8_weights: weights are stored as int8; else as
    float with Q and DQ, four times the bytes, for parsers that take no int8 constants: those of TensorRT 8 refuse them
    ("invalid weights type of Int8"). None: as floats where placed for TensorRT, whose engines have them as int8 anyway.
    """

    placement: str = "tensorrt"
    method: str = "mse"
    percentile: float = 99.99
    bins: int = 2048
    equalize: bool = False
    correct_bias: bool = True
    bias_images: int = 64
    quantize_outputs: bool = False
    keep_float: frozenset[str] = frozenset()
    int8_weights: bool | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for what is not allowed."""
        for field, value, allowed in (("placement", self.placement, PLACEMENTS), ("method", self.method, METHODS)):
            if value not in allowed:
                raise ConfigError(f"int8 {field}: {value!r} is unknown", f"allowed are {', '.join(allowed)}")
        if not 50 < self.percentile <= 100:
            raise ConfigError(
                f"int8 percentile: {self.percentile} is not above 50 and at most 100", "99.9 to 100 are usual"
            )
        if self.bins < 512:
            raise ConfigError(f"int8 bins: {self.bins} are too few to choose among; at least 512", "2048 is usual")
        if self.bias_images < 1:
            raise ConfigError(f"int8 bias_images: {self.bias_images}; at least 1", "or turn correct_bias off")
        if self.quantize_outputs and self.placement != "onnxruntime":
            raise ConfigError(
                "int8 quantize_outputs: TensorRT fuses nothing behind the last layer, and outputs lose accuracy",
                "leave it off, or place for onnxruntime",
            )

    @property
    def stores_int8(self) -> bool:
        """Whether weights are stored as int8."""
        return self.placement == "onnxruntime" if self.int8_weights is None else self.int8_weights
