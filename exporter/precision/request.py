"""What is asked for of a further precision, checked where it is written down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgeslim.errors import ConfigError
from edgeslim.runtime import Precision
from edgeslim.runtime.variants import MODEL, is_variant_name

from .fp16 import Fp16Options
from .int8 import Int8Options
from .simulate import Outputs, simulate

MOST_LOSS: Mapping[Precision, float] = {"fp16": 0.001, "int8": 0.005}
"""By how much the score on the validation images may fall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRequest:
    """What to make.

    name: under which it is asked for.  half: what cannot be int8 becomes float16, for GPUs.  most_loss: of the
    validation score, `MOST_LOSS` where None.  Raises ConfigError for a name that no file could have, and the like.
    """

    name: str
    options: Fp16Options | Int8Options
    half: bool = False
    most_loss: float | None = None

    def __post_init__(self) -> None:
        if not is_variant_name(self.name):
            raise ConfigError(
                f"{self.name!r} is no name for a precision",
                f"give up to 40 of a-z, 0-9, . _ -, a letter or digit first; {MODEL} is the model itself",
            )
        if self.most_loss is not None and not (math.isfinite(self.most_loss) and self.most_loss >= 0.0):
            raise ConfigError(f"the largest loss is {self.most_loss}", "give a number from 0, such as 0.005")
        if self.half and isinstance(self.options, Fp16Options):
            raise ConfigError("half says what becomes of the rest of an int8 net", "leave it out with float16")

    @property
    def precision(self) -> Precision:
        """The lowest one in the graph that will be made."""
        return "fp16" if isinstance(self.options, Fp16Options) else "int8"

    @property
    def allowed_loss(self) -> float:
        """By how much the score may fall."""
        return MOST_LOSS[self.precision] if self.most_loss is None else self.most_loss

    @property
    def by_integer_kernels(self) -> bool:
        """Whether the CPU's integer kernels are what will run it: then they are what it is judged by."""
        return isinstance(self.options, Int8Options) and self.options.placement == "onnxruntime" and not self.half

    def open(self, model: ir.Model) -> Outputs:
        """A graph of this request, computing what its device will."""
        return simulate(model, integer_kernels=self.by_integer_kernels)
