"""The recipe's sections of criteria. What they mean is in the modules of `criteria` with the same names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .recipe_base import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Section


class CriterionSection(Section):
    """What all criteria share: how scores of channels become scores of units. Absent: as suits the criterion."""

    reduction: Literal["mean", "sum", "max", "first"] | None = None
    """Over all channels that live and die together."""
    normalisation: Literal["none", "mean", "max", "l2", "standard"] | None = None
    """By which the channels of one layer are made comparable with those of another."""
    ranking: Literal["local", "global"] | None = None
    """`local`: a unit's score is its rank within its family. A ratio budget ranks within families anyway."""


class Calibrated(Section):
    """One that runs the net on images."""

    images: PositiveInt = 16
    """Training images as they are drawn for training; where the set holds fewer, they come again in other crops."""


class CalibratedCriterion(Calibrated, CriterionSection):
    """Both."""


class LnNormCriterion(CalibratedCriterion):
    """Wang & Zhu 2019: Ln-norm of the feature map after the non-linearity, n growing with depth."""

    name: Literal["ln_norm"]
    n: Literal["depth", "stages", "inf"] | Annotated[float, Field(ge=1.0, allow_inf_nan=False)] = "depth"
    """`depth`: from 1 at the first layer to infinity at the last; `stages`: 1, 2, infinity; or one n for all."""


class L1Criterion(CriterionSection):
    """Mean |w| of a unit's producers, the usual baseline."""

    name: Literal["l1"]


class L2Criterion(CriterionSection):
    """Root mean square of a unit's producers."""

    name: Literal["l2"]


class BnScaleCriterion(CriterionSection):
    """|gamma| of the batch norm behind a channel."""

    name: Literal["bn_scale"]


class TaylorCriterion(CalibratedCriterion):
    """|w * dloss/dw|, summed over the unit."""

    name: Literal["taylor"]


class GeometricMedianCriterion(CriterionSection):
    """Distance to all other filters of the layer."""

    name: Literal["geometric_median"]


class RedundancyCriterion(CriterionSection):
    """The norm of a filter, less what a larger filter of the same direction replaces."""

    name: Literal["redundancy"]
    tau: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.8


class GradientCountCriterion(CalibratedCriterion):
    """How often a kernel, a feature map, or the loss over a window of steps, has a gradient."""

    name: Literal["gradient_count"]
    on: Literal["kernel", "feature", "loss"] = "feature"
    beta: PositiveFloat | None = 0.2
    """A difference d, in units of its layer's mean, counts 1 - exp(-beta d); `null` counts it as 1 above `eps`."""
    eps: NonNegativeFloat = 0.1
    window: PositiveInt = 16
    """Training steps that are looked at, for `on: loss`."""
    rate: NonNegativeFloat = 1e-3
    """The learning rate of those steps."""


class RandomCriterion(CriterionSection):
    """A number by chance: what every other criterion must beat."""

    name: Literal["random"]
    seed: NonNegativeInt = 0


class ReconstructionCriterion(Calibrated):
    """What the layers that read a unit cannot make up for; in one unit for all layers, so nothing is pooled."""

    name: Literal["reconstruction"]


CriterionSpec = Annotated[
    LnNormCriterion
    | L1Criterion
    | L2Criterion
    | BnScaleCriterion
    | TaylorCriterion
    | GeometricMedianCriterion
    | RedundancyCriterion
    | GradientCountCriterion
    | RandomCriterion
    | ReconstructionCriterion,
    Field(discriminator="name"),
]
