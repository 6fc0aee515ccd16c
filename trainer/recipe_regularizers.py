"""The recipe's sections of regularizers. What they mean is in the modules of `regularizers` with the same names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from .recipe_base import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, Section

LOSS_IS_NO_PENALTY = "counting the loss's gradients is an importance, not a penalty: it belongs to prune.criterion"


class RegularizerSection(Section):
    """What all regularizers share: when they act."""

    warmup_steps: NonNegativeInt = 0
    """Steps without the penalty."""
    ramp_steps: NonNegativeInt = 0
    """Steps after those in which its strength grows evenly from nothing to the whole."""


class KernelRegularizer(RegularizerSection):
    """One that acts on weights element by element."""

    parameters: Literal["kernels", "all"] = "kernels"
    """`all`: biases and batch norms too."""


class L0Regularizer(KernelRegularizer):
    """Oliveira et al. 2024: alpha * s_l * sum(1 - exp(-beta |w|)) + l2 * sum(w^2)."""

    name: Literal["l0"]
    alpha: NonNegativeFloat = 1e-6
    beta: PositiveFloat = 5.0
    l2: NonNegativeFloat = 1e-4
    layer_scale: Literal["sqrt", "inverse", "none"] = "sqrt"
    decoupled: bool = False
    """Move the weights after the optimiser's step instead of adding the penalty to the loss: another method."""


class L1Regularizer(KernelRegularizer):
    """weight * sum |w|."""

    name: Literal["l1"]
    weight: NonNegativeFloat = 1e-5


class L2Regularizer(KernelRegularizer):
    """weight * sum w^2."""

    name: Literal["l2"]
    weight: NonNegativeFloat = 1e-4


class GroupLassoRegularizer(RegularizerSection):
    """weight * sum over filters of sqrt(size) * |W_f|_2: whole filters go to zero."""

    name: Literal["group_lasso"]
    weight: NonNegativeFloat = 1e-5


class BnScaleRegularizer(RegularizerSection):
    """Network slimming: weight * sum |gamma| over the scales of batch norms."""

    name: Literal["bn_scale"]
    weight: NonNegativeFloat = 1e-4


class GradientCountRegularizer(RegularizerSection):
    """How often a kernel, or a feature map, changes from one position to the next."""

    name: Literal["gradient_count"]
    weight: NonNegativeFloat = 1e-2
    on: Literal["kernel", "feature", "loss"] = "kernel"
    form: Literal["exponential", "splitting"] = "exponential"
    beta: PositiveFloat = 5.0
    """Sharpness at the start: of 1 - exp(-beta |d|), or mu of the half-quadratic splitting."""
    beta_end: PositiveFloat = 50.0
    """Sharpness at the end of the stage."""

    @field_validator("on")
    @classmethod
    def _penalty(cls, on: str) -> str:
        if on == "loss":
            raise ValueError(LOSS_IS_NO_PENALTY)
        return on

    @model_validator(mode="after")
    def _rising(self) -> GradientCountRegularizer:
        if self.beta_end < self.beta:
            raise ValueError(f"beta_end {self.beta_end} is below beta {self.beta}: the count only ever gets sharper")
        return self


class RedundancyRegularizer(RegularizerSection):
    """Filters that are nearly parallel are pushed apart or pulled together, and the lesser of two is weakened."""

    name: Literal["redundancy"]
    weight: NonNegativeFloat = 1e-2
    sign: Literal["repel", "attract"] = "attract"
    tau: Fraction = 0.8
    """Filters with |cos| above it are a pair."""
    pressure: NonNegativeFloat = 1.0
    """Of the group lasso on the lesser of a pair, relative to `weight`; it grows from nothing over the stage."""
    rank: Literal["norm", "gradient_count"] = "norm"
    """By which the lesser of two is told."""


RegularizerSpec = Annotated[
    L0Regularizer
    | L1Regularizer
    | L2Regularizer
    | GroupLassoRegularizer
    | BnScaleRegularizer
    | GradientCountRegularizer
    | RedundancyRegularizer,
    Field(discriminator="name"),
]
