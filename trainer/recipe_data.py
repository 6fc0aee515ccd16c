"""The sections of a recipe that name a data set, one a reader in `data/`. The data decides what kind of task it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .recipe_base import Fraction, NonNegativeInt, PositiveFloat, PositiveInt, Section

VesselSide = Annotated[int, Field(ge=32, le=2048)]


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
