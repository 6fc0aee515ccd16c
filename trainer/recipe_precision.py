"""The recipe's section of further precisions. What they mean is in docs/methods/quantization.md."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgeslim.exporter.precision import Fp16Options, Int8Options
from edgeslim.exporter.precision.request import VariantRequest

from .recipe_base import NonNegativeFloat, PositiveInt, Section

_OF_BOTH = frozenset({"kind", "name", "images", "max_loss"})


class PrecisionSection(Section):
    """One further precision of the pruned net, made from training images and scored on the validation images."""

    kind: Literal["fp16", "int8"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")] | None = None
    """Under which it is asked for; the kind where absent."""
    images: PositiveInt = 64
    """Training images, not augmented, that ranges are taken from."""
    max_loss: NonNegativeFloat | None = None
    """How far the score may fall: 0.001 in fp16, 0.005 in int8 where absent."""
    placement: Literal["tensorrt", "onnxruntime"] = "tensorrt"
    method: Literal["minmax", "entropy", "percentile", "mse"] = "mse"
    percentile: Annotated[float, Field(gt=50.0, le=100.0)] = 99.99
    equalize: bool = False
    bias_correction: bool = True
    half: bool = False
    """What is not int8 becomes float16, for TensorRT."""
    search: bool = False
    """Measure here which groups of layers are worth int8."""
    groups: PositiveInt = 12
    """Into how many groups the layers are divided for that."""

    @model_validator(mode="after")
    def _fits_the_kind(self) -> PrecisionSection:
        fields = type(self).model_fields.items()  # a recipe as it was resolved names them all
        changed = [name for name, field in fields if name not in _OF_BOTH and getattr(self, name) != field.default]
        if self.kind == "fp16" and changed:
            raise ValueError(f"{', '.join(changed)} is for int8: leave it out with kind fp16")
        return self

    @property
    def request(self) -> VariantRequest:
        """As the exporter takes it."""
        name = self.name or self.kind
        if self.kind == "fp16":
            return VariantRequest(name=name, options=Fp16Options(), most_loss=self.max_loss)
        options = Int8Options(
            placement=self.placement,
            method=self.method,
            percentile=self.percentile,
            equalize=self.equalize,
            correct_bias=self.bias_correction,
        )
        return VariantRequest(name=name, options=options, half=self.half, most_loss=self.max_loss)


class FrameRangeSection(Section):
    """Batches that engines are built for: (frames, height, width) each."""

    minimum: tuple[PositiveInt, PositiveInt, PositiveInt]
    optimum: tuple[PositiveInt, PositiveInt, PositiveInt]
    maximum: tuple[PositiveInt, PositiveInt, PositiveInt]

    @model_validator(mode="after")
    def _grows(self) -> FrameRangeSection:
        for low, usual, high in zip(self.minimum, self.optimum, self.maximum):
            if not low <= usual <= high:
                raise ValueError(f"frame_range: {low} <= {usual} <= {high} does not hold")
        return self
