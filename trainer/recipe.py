"""The sections of a recipe: everything that a run depends on, and what each value may be.

Every section is frozen and strict. Those of data sets, regularizers and criteria have files of their own. `recipe_file`
reads recipes from YAML and words what is wrong with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from .recipe_base import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Section, Size
from .recipe_criteria import CriterionSpec, LnNormCriterion
from .recipe_data import DataSpec
from .recipe_gradual import GradualSchedule
from .recipe_precision import FrameRangeSection, PrecisionSection
from .recipe_regularizers import L0Regularizer, RegularizerSpec
from .recipe_target import TargetBudget


class ModelSpec(Section):
    """Which net to build: a built-in name, or `my_package.nets:build`, with its keyword arguments."""

    name: str
    args: dict[str, JsonValue] = Field(default_factory=dict)
    weights: Path | None = None
    """What it starts from: a safetensors file, a checkpoint directory or a PyTorch file; chance where absent."""


class AugmentSection(Section):
    """Random changes of a training crop; each is off at its zero."""

    crop: Size | None = None
    """Cut from the image before anything else; a smaller image is padded with unlabelled black. 96 x 96 where absent,
    in classification the whole image."""
    padding: NonNegativeInt = 0
    """Classification: pixels of black around the image before the crop is cut, that is the farthest shift."""
    flip: bool = True
    """Mirror left and right in half of the draws."""
    rotate_degrees: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Angle drawn from [-rotate_degrees, rotate_degrees]."""
    scale: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Zoom factor drawn from [1 - scale, 1 + scale]."""
    brightness: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Factor on all pixels drawn from [1 - brightness, 1 + brightness]."""
    contrast: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Factor on the distance from the mean grey drawn from [1 - contrast, 1 + contrast]."""


class LossSection(Section):
    """Weighted sum of the losses."""

    dice: NonNegativeFloat | None = None
    """Segmentation: weight of the Dice loss, 1 where absent."""
    cross_entropy: NonNegativeFloat = 1.0
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of every label that is spread over all classes."""

    @model_validator(mode="after")
    def _some_loss(self) -> LossSection:
        if self.dice == 0 and self.cross_entropy == 0:
            raise ValueError("dice and cross_entropy are both 0: nothing would be learnt")
        return self


class EarlyStop(Section):
    """Stop when the validation score has not risen for `patience` evaluations; the best weights are kept."""

    patience: PositiveInt = 5
    min_delta: NonNegativeFloat = 0.0


class FitSection(Section):
    """One training run: Adam, AdamW or SGD under a cosine schedule with linear warm-up."""

    steps: PositiveInt
    batch_size: PositiveInt = 8
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 10
    clip_norm: PositiveFloat | None = 1.0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    evaluate_every: PositiveInt = 50
    early_stop: EarlyStop | None = None
    workers: NonNegativeInt = 0
    """Data-loading processes; 0 loads in the training process."""


class OneShotSchedule(Section):
    """Cut once."""

    name: Literal["one_shot"]


class IterativeSchedule(Section):
    """Reach the budget in rounds: `geometric` in equal ratios, `polynomial` much early and little late."""

    name: Literal["iterative"] = "iterative"
    rounds: PositiveInt = 3
    law: Literal["geometric", "polynomial"] = "geometric"
    power: PositiveFloat = 3.0
    """Of the polynomial law; 1 makes it geometric."""
    between: FitSection | None = None
    """The short recovery after every round but the last; none when absent."""


class LayerwiseSchedule(Section):
    """One family of layers after the other, first to last; at most `share` of its width leaves at a time."""

    name: Literal["layerwise"]
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    between: FitSection | None = None
    """The short recovery after every step but the last; none when absent."""


def _schedule_name(given: object) -> object:
    """A section without a name is the iterative one."""
    return given.get("name", "iterative") if isinstance(given, dict) else getattr(given, "name", None)


ScheduleSpec = Annotated[
    Annotated[OneShotSchedule, Tag("one_shot")]
    | Annotated[IterativeSchedule, Tag("iterative")]
    | Annotated[LayerwiseSchedule, Tag("layerwise")]
    | Annotated[GradualSchedule, Tag("gradual")],
    Discriminator(_schedule_name),
]


class RatioBudget(Section):
    """Cut this fraction of every family's channels."""

    name: Literal["ratio"]
    ratio: Fraction


class MacsBudget(Section):
    """Cut the least important channels, over all families, until this fraction of the MACs is left."""

    name: Literal["macs"]
    keep: Fraction
    min_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    """Of every family's width, that stays: no layer is emptied because its channels look cheap."""


BudgetSpec = Annotated[RatioBudget | MacsBudget | TargetBudget, Field(discriminator="name")]


class RecoverySection(Section):
    """What makes up for every cut before anything is trained; `images` training images are looked at."""

    methods: tuple[Literal["batch_norm", "twins", "least_squares"], ...] = ("least_squares",)
    images: PositiveInt = 32


class PruneSection(Section):
    """Which channels go, by which score, how many, in how many rounds, and what makes up for them."""

    criterion: CriterionSpec = LnNormCriterion(name="ln_norm")
    budget: BudgetSpec
    schedule: ScheduleSpec = IterativeSchedule()
    recovery: RecoverySection | None = RecoverySection()
    """Left out where single weights are held at zero, which it would fill."""
    width_multiple: PositiveInt = 8
    """Kept widths are rounded to a multiple of this, the step in which the device gets faster."""
    min_width: PositiveInt = 8


class DistillSection(Section):
    """The dense net as teacher: weight * T^2 * KL(teacher || student) beside the task loss."""

    weight: NonNegativeFloat = 1.0
    temperature: PositiveFloat = 2.0
    mixed: bool = False
    """The last training shows images mixed of two, and learns from the teacher alone: they have no label. For a net
    that was trained on these very images, and has no more to learn from them as they are."""

    @model_validator(mode="after")
    def _teaches(self) -> DistillSection:
        if self.mixed and self.weight == 0:
            raise ValueError("mixed images have no label, and the teacher's weight is 0: nothing would be learnt")
        return self


class FinetuneSection(Section):
    """The last optimisation, on the compact net."""

    fit: FitSection
    distill: DistillSection | None = DistillSection()


class SparsifySection(Section):
    """Training under regularizers, which push unneeded weights to zero."""

    fit: FitSection
    regularizers: tuple[RegularizerSpec, ...] = (L0Regularizer(name="l0"),)
    """Their penalties add up; an empty list trains without any."""

    @model_validator(mode="after")
    def _all_act(self) -> SparsifySection:
        for number, section in enumerate(self.regularizers):
            if section.warmup_steps >= self.fit.steps:
                raise ValueError(
                    f"regularizers.{number} ({section.name}) has {section.warmup_steps} warmup_steps, and fit has "
                    f"{self.fit.steps} steps: it would never act"
                )
        return self


class WeightsSection(Section):
    """Pruning single weights, after the regularizers and before any channel goes unless `order` says otherwise."""

    method: Literal["magnitude", "lamp", "threshold", "2:4"] = "magnitude"
    fraction: Fraction | None = None
    """magnitude, lamp: the share that goes of all weights, those of channels that are cut already not counted."""
    per_layer: bool = False
    """magnitude: the same share of every kernel instead of one order over all."""
    delta: NonNegativeFloat | None = None
    """threshold: the share by which the loss on the validation images may grow, in every round anew."""
    schedule: IterativeSchedule | None = None
    """Rounds with training in between; one where absent. A fraction is neared by the law, `threshold`
    searches anew every time."""
    finetune: FitSection
    """Training with the pruned weights held at zero, after the last round."""

    @model_validator(mode="after")
    def _options_of_the_method(self) -> WeightsSection:
        for name, methods in (("fraction", ("magnitude", "lamp")), ("delta", ("threshold",))):
            if (getattr(self, name) is not None) != (self.method in methods):
                verb = "needs" if self.method in methods else "has no"
                raise ValueError(f"method {self.method} {verb} {name}")
        if self.per_layer and self.method != "magnitude":
            raise ValueError(f"method {self.method} has no per_layer")
        if self.schedule is not None and self.method == "2:4":
            raise ValueError("method 2:4 has no schedule: two of four go at once")
        return self


class ExportSection(Section):
    """What is shipped."""

    size: Size | None = None
    """(height, width) of a camera frame in the bundle's benchmark; the test images' size where absent."""
    simplify: bool = True
    frame_range: FrameRangeSection | None = None
    """Batches that engines are built for; single frames of `size` where absent."""


class BenchSection(Section):
    """How the two bundles are timed against each other."""

    threads: PositiveInt = 1
    samples: Annotated[int, Field(ge=20)] = 100
    seconds: PositiveFloat = 20.0
    """Stop sampling after this long, even if fewer samples were taken (never fewer than 20 a side)."""


SectionName = Literal["sparsify", "weights", "prune"]
_SECTIONS: tuple[SectionName, ...] = ("sparsify", "weights", "prune")


class Recipe(Section):
    """A whole run: data -> dense net -> sparse net, single weights, channels, in `order` -> bundle -> benchmark."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    model: ModelSpec
    data: DataSpec
    augment: AugmentSection = AugmentSection()
    loss: LossSection = LossSection()
    train: FitSection | None = None
    """The dense net's training; null where it is used as `model.weights` has it."""
    sparsify: SparsifySection | None = None
    weights: WeightsSection | None = None
    prune: PruneSection | None = None
    """Channels; where absent only those leave that pruned weights have killed."""
    order: tuple[SectionName, ...] = _SECTIONS
    """In which these three are done, whichever the recipe has. What comes after a cut trains the narrow net, which is
    faster, with the dense net as teacher where `finetune` has one."""
    finetune: FinetuneSection
    export: ExportSection = ExportSection()
    precisions: tuple[PrecisionSection, ...] = ()
    """Float16 and int8 beside the fp32 model of the pruned net."""
    bench: BenchSection = BenchSection()

    @property
    def gradual(self) -> PruneSection | None:
        """The section `prune` where it cuts while the stage `sparse` trains."""
        return self.prune if self.prune is not None and isinstance(self.prune.schedule, GradualSchedule) else None

    @model_validator(mode="after")
    def _fits_the_task(self) -> Recipe:
        if self.data.task == "classification" and self.loss.dice is not None:
            raise ValueError(f"loss.dice is for masks, and {self.data.name} has one class an image: leave it out")
        if self.data.task == "classification" and self.loss.cross_entropy == 0:
            raise ValueError("loss.cross_entropy is 0: nothing would be learnt")
        if self.data.task != "classification" and self.augment.padding:
            raise ValueError(f"augment.padding is for classification, and {self.data.name} has masks: use augment.crop")
        return self

    @model_validator(mode="after")
    def _trained_somewhere(self) -> Recipe:
        if self.train is None and self.model.weights is None:
            raise ValueError("train is missing, and so is model.weights: the net would know nothing")
        return self

    @model_validator(mode="after")
    def _names_every_section_once(self) -> Recipe:
        if sorted(self.order) != sorted(_SECTIONS):
            raise ValueError(f"order is {list(self.order)}: name each of {', '.join(_SECTIONS)} once, used or not")
        return self

    @model_validator(mode="after")
    def _names_every_precision_once(self) -> Recipe:
        names = [section.name or section.kind for section in self.precisions]
        if len(set(names)) != len(names) or "fp32" in names:
            raise ValueError(f"precisions are named {names}: give each another name, and none fp32")
        return self

    @model_validator(mode="after")
    def _cuts_while_it_trains(self) -> Recipe:
        schedule = None if self.prune is None else self.prune.schedule
        if isinstance(schedule, GradualSchedule):
            if self.order != _SECTIONS:
                raise ValueError("prune.schedule gradual cuts while sparsify trains: leave out order")
            if self.sparsify is None:
                raise ValueError(
                    "prune.schedule gradual cuts while sparsify trains, and sparsify is missing: add it, with "
                    "regularizers: [] if no penalty is wanted"
                )
            if self.weights is not None:
                raise ValueError(
                    "weights prunes single weights of a net that is not cut yet, and prune.schedule gradual has cut it "
                    "by then: leave out weights, or use another schedule"
                )
            schedule.check_steps(self.sparsify.fit.steps)
        return self

    @model_validator(mode="after")
    def _something_to_prune(self) -> Recipe:
        if self.prune is None and self.weights is None:
            raise ValueError("prune is missing, and so is weights: nothing would be pruned")
        return self
