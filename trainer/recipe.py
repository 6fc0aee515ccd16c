"""The recipe: one YAML file says everything that a run depends on.

Strict at the edge: an unknown key, a wrong type or an impossible value is one line that names the YAML path.
Every section is frozen; a run stores its recipe as resolved JSON, so that what was asked can be read back.
"""

from __future__ import annotations

import datetime
import json
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from edgeslim.errors import ConfigError

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Size = tuple[PositiveInt, PositiveInt]
VesselSide = Annotated[int, Field(ge=32, le=2048)]


class Section(BaseModel):
    """Base of all recipe sections: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSpec(Section):
    """Which net to build: a built-in name, or `my_package.nets:build`, with its keyword arguments."""

    name: str
    args: dict[str, JsonValue] = {}


class DataSection(Section):
    """What all data sets share. Sizes are (height, width) in pixels."""

    validation: Fraction = 0.2
    """Share of the training images held out for early stopping and every other choice."""
    on_error: Literal["raise", "skip"] = "raise"
    """What to do with an image that cannot be decoded: stop, or leave it out, count it and say so."""
    mean: tuple[float, float, float] | None = None
    """Per-channel mean of pixels scaled to [0, 1]; measured on the training images where absent."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None


class VesselsData(DataSection):
    """Built-in retina-like images with branching vessels, generated from a seed."""

    name: Literal["vessels"]
    train: Annotated[int, Field(ge=2)] = 48
    """Images to train on, with those held out for validation."""
    test: PositiveInt = 24
    size: tuple[VesselSide, VesselSide] = (192, 192)
    seed: NonNegativeInt = 0


class StareData(DataSection):
    """STARE retinal vessels: images/, manual_ah/ or manual_vk/, mask/ with the field of view."""

    name: Literal["stare"]
    root: Path
    observer: Literal["ah", "vk"] = "ah"
    train: PositiveInt = 10
    """The first images in name order train (and validate); the rest are the test set."""


class SegmentationFolderData(DataSection):
    """A folder with images/ and masks/ (same base names), optionally split into train/ and test/."""

    name: Literal["segmentation-folder"]
    root: Path
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=255)]
    mask: Literal["ids", "binary"] = "ids"
    """`ids`: pixel value = class id, `ignore_index` = unlabelled. `binary`: zero = first class, other = second."""
    ignore_index: Annotated[int, Field(ge=0, le=255)] = 255
    test: Fraction = 0.2
    """Share held out as the test set where the folder has no test/ of its own."""

    @model_validator(mode="after")
    def _consistent(self) -> SegmentationFolderData:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have the same name")
        if self.mask == "binary" and len(self.classes) != 2:
            raise ValueError(f"mask: binary has two classes, {len(self.classes)} are named")
        if self.mask == "binary" and self.ignore_index < 2:
            raise ValueError(f"ignore_index {self.ignore_index} is a class of a binary mask")
        return self


DataSpec = Annotated[VesselsData | StareData | SegmentationFolderData, Field(discriminator="name")]


class AugmentSection(Section):
    """Random changes of a training crop; each is off at its zero."""

    crop: Size = (96, 96)
    """Cut from the image before anything else; a smaller image is padded with unlabelled black."""
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
    """Weighted sum of the pixel losses."""

    dice: NonNegativeFloat = 1.0
    cross_entropy: NonNegativeFloat = 1.0

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
    """One optimisation run: AdamW or SGD under a cosine schedule with linear warm-up."""

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


class L0Regularizer(Section):
    """Oliveira et al. 2024: alpha * s_l * sum(1 - exp(-beta |w|)) + l2 * sum(w^2)."""

    name: Literal["l0"]
    alpha: NonNegativeFloat = 1e-6
    beta: PositiveFloat = 5.0
    l2: NonNegativeFloat = 1e-4
    layer_scale: Literal["sqrt", "inverse", "none"] = "sqrt"


class LnNormCriterion(Section):
    """Wang & Zhu 2019: Ln-norm of the feature map after the non-linearity, n growing with depth."""

    name: Literal["ln_norm"]
    images: PositiveInt = 16
    """Calibration images; fewer are used, and said, where the training set holds fewer."""


class L1Criterion(Section):
    """L1 norm of a unit's producer weights, the usual baseline."""

    name: Literal["l1"]


CriterionSpec = Annotated[LnNormCriterion | L1Criterion, Field(discriminator="name")]


class IterativeSchedule(Section):
    """Reach the budget in equal ratios over `steps` rounds with `fit` between them."""

    name: Literal["iterative"] = "iterative"
    steps: PositiveInt = 3
    between: FitSection | None = None
    """The short recovery after every round but the last; none when absent."""


class RatioBudget(Section):
    """Cut this fraction of every family's channels."""

    name: Literal["ratio"]
    ratio: Fraction


class MacsBudget(Section):
    """Cut the least important channels, over all families, until this fraction of the MACs is left."""

    name: Literal["macs"]
    keep: Fraction


BudgetSpec = Annotated[RatioBudget | MacsBudget, Field(discriminator="name")]


class PruneSection(Section):
    """Which channels go, by which score, how many, and in how many rounds."""

    criterion: CriterionSpec = LnNormCriterion(name="ln_norm")
    budget: BudgetSpec
    schedule: IterativeSchedule = IterativeSchedule()
    width_multiple: PositiveInt = 8
    """Kept widths are rounded to a multiple of this, the step in which the device gets faster."""
    min_width: PositiveInt = 8


class DistillSection(Section):
    """The dense net as teacher: weight * T^2 * KL(teacher || student) beside the task loss."""

    weight: NonNegativeFloat = 1.0
    temperature: PositiveFloat = 2.0


class FinetuneSection(Section):
    """The last optimisation, on the compact net."""

    fit: FitSection
    distill: DistillSection | None = DistillSection()


class SparsifySection(Section):
    """Training under the regulariser that pushes the unneeded weights to zero."""

    fit: FitSection
    regularizers: tuple[L0Regularizer, ...] = (L0Regularizer(name="l0"),)


class ExportSection(Section):
    """What is shipped."""

    size: Size | None = None
    """(height, width) of a camera frame in the bundle's benchmark; the test images' size where absent."""
    simplify: bool = True


class BenchSection(Section):
    """How the two bundles are timed against each other."""

    threads: PositiveInt = 1
    samples: Annotated[int, Field(ge=20)] = 100
    seconds: PositiveFloat = 20.0
    """Stop sampling after this long, even if fewer samples were taken (never fewer than 20 a side)."""


class Recipe(Section):
    """A whole run: data -> dense net -> sparse net -> pruned net -> bundle -> benchmark."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    model: ModelSpec
    data: DataSpec
    augment: AugmentSection = AugmentSection()
    loss: LossSection = LossSection()
    train: FitSection
    sparsify: SparsifySection | None = None
    prune: PruneSection
    finetune: FinetuneSection
    export: ExportSection = ExportSection()
    bench: BenchSection = BenchSection()


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key.path=value` overrides (values are YAML).

    Raises ConfigError that names the file and the YAML path of the first mistakes.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} cannot be read: {error}", "give the path of a YAML file") from error
    data = _parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a recipe is a mapping, this is {_kind(data)}", "see recipes/ for examples")
    for override in overrides:
        _apply_override(data, override)
    return parse_recipe(data, str(path))


def parse_recipe(data: dict[str, Any], where: str = "recipe") -> Recipe:
    """Check a recipe given as a mapping. Raises ConfigError naming every wrong YAML path."""
    try:
        # JSON mode: strict about types, yet a YAML list may become a tuple and a string a Path.
        return Recipe.model_validate_json(json.dumps(data))
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
        raise ConfigError(f"{where}: " + "; ".join(lines), "correct the keys named above") from error


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-3` as text; recipes mean the number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _parse_yaml(text: str, where: str) -> object:
    try:
        return _plain(yaml.load(text, Loader=_Loader))
    except (yaml.YAMLError, RecursionError) as error:  # an anchor may contain itself
        raise ConfigError(f"{where} is not YAML: {error}", "check indentation and quotes") from error


def _plain(value: object) -> object:
    """Dates are the one YAML scalar without a JSON form: keep their text."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, (datetime.date, bytes, set)) else value


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override {override!r} is not key.path=value", "for example --set train.lr=0.001")
    target = data
    for depth, part in enumerate(parts[:-1]):
        below = target.setdefault(part, {})
        if not isinstance(below, dict):
            place = ".".join(parts[: depth + 1])
            raise ConfigError(f"override {override!r}: {place} is {_kind(below)}, not a section", "check the path")
        target = below
    target[parts[-1]] = _parse_yaml(text, f"override {override!r}")


def _describe(problem: Any) -> str:
    path = _yaml_path(problem["loc"]) or "recipe"
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown key"
    if problem["type"] == "missing":
        return f"{path}: missing"
    if problem["type"] == "union_tag_not_found":
        return f"{path}.name: missing"
    if problem["type"] == "union_tag_invalid":
        seen, known = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
        return f"{path}.name: {seen!r} is not one of {known}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = problem["input"]
    seen = "" if isinstance(shown, (dict, list)) else f" (got {shown!r})"
    return f"{path}: {message}{seen}"


def _yaml_path(loc: Sequence[str | int]) -> str:
    """pydantic's location as the path in the YAML file.

    Inside a section chosen by its `name`, pydantic puts that name into the location (`data.stare.root`); it is
    found by walking down the annotations beside the location, and left out.
    """
    parts: list[str] = []
    kind: object = Recipe
    for part in loc:
        chosen = _choices(kind).get(str(part))
        if chosen is not None:
            kind = chosen
            continue
        parts.append(str(part))
        kind = _inside(kind, part)
    return ".".join(parts)


def _choices(kind: object) -> dict[str, type[Section]]:
    """The sections of a union of named sections, by the name that selects them; empty for all else."""
    members = [m for m in typing.get_args(_bare(kind)) if isinstance(m, type) and issubclass(m, Section)]
    if len(members) < 2:
        return {}
    return {tag: m for m in members for tag in typing.get_args(m.model_fields["name"].annotation)}


def _inside(kind: object, part: str | int) -> object:
    """The annotation of field or item `part` of `kind`; None where it is not known."""
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, Section):
        field = kind.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = typing.get_args(kind)
    return arguments[0] if arguments and isinstance(part, int) else None


def _bare(kind: object) -> object:
    """Take off `Annotated[...]` and `... | None`."""
    if typing.get_origin(kind) is Annotated:
        return _bare(typing.get_args(kind)[0])
    options = [a for a in typing.get_args(kind) if a is not type(None)]
    is_optional = len(options) == 1 and len(typing.get_args(kind)) == 2
    return _bare(options[0]) if is_optional else kind


def _kind(value: object) -> str:
    return "empty" if value is None else f"a {type(value).__name__}"
