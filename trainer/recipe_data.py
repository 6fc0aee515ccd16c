"""The sections of a recipe that name a data set, one a reader in `data/`. The data decides what kind of task it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from edgeslim.runtime.manifest import TaskName

from .recipe_base import Fraction, NonNegativeInt, PositiveFloat, PositiveInt, Section, Size

VesselSide = Annotated[int, Field(ge=32, le=2048)]


class DataSection(Section):
    """What all data sets share. Sizes are (height, width) in pixels."""

    task: ClassVar[TaskName] = "segmentation"

    validation: Fraction = 0.2
    """Share of the training images held out for early stopping and every other choice."""
    on_error: Literal["raise", "skip"] = "raise"
    """What to do with an image that cannot be decoded: stop, or leave it out, count it and say so."""
    mean: Annotated[tuple[float, ...], Field(min_length=1, max_length=3)] | None = None
    """Per-channel mean of pixels scaled to [0, 1]; measured on the training images where absent."""
    std: Annotated[tuple[PositiveFloat, ...], Field(min_length=1, max_length=3)] | None = None

    @property
    def channels(self) -> int:
        """Of an image: 3 (RGB) or 1 (grey)."""
        return 3

    @model_validator(mode="after")
    def _one_number_a_channel(self) -> DataSection:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} has {len(values)} numbers, the images have {self.channels} channels")
            if values is not None and max(map(abs, values)) > 1.0:
                raise ValueError(f"{name} is of pixels scaled to [0, 1], {max(values, key=abs)} is not: divide by 255")
        return self


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


class ChaseData(DataSection):
    """CHASE_DB1 retinal vessels: Image_01L.jpg with Image_01L_1stHO.png and Image_01L_2ndHO.png, in one folder."""

    name: Literal["chase-db1"]
    root: Path
    observer: Literal["1stHO", "2ndHO"] = "1stHO"
    train: PositiveInt = 20
    """The first images in name order train (and validate); the rest are the test set."""


class DriveData(DataSection):
    """DRIVE retinal vessels: training/ and test/, each with images/, 1st_manual/ and mask/ with the field of view."""

    name: Literal["drive"]
    root: Path
    test: PositiveInt | None = None
    """The last so many training images are the test set, for copies of DRIVE whose test/ has no labels."""


class CamvidData(DataSection):
    """CamVid as SegNet split it: train/, val/, test/ with images, trainannot/ ... with class ids; val/ validates."""

    name: Literal["camvid"]
    root: Path
    size: Size | None = None
    """Resize all frames to (height, width): images by area, masks to the nearest pixel; as they are where absent."""


class ClassificationSection(DataSection):
    """What all data sets share whose images have one class each."""

    task: ClassVar[TaskName] = "classification"


class MnistData(ClassificationSection):
    """MNIST and what is kept like it (Fashion-MNIST): four idx files, packed by gzip or not; grey images."""

    name: Literal["mnist"]
    root: Path
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=256)] = tuple("0123456789")

    @property
    def channels(self) -> int:
        """Grey."""
        return 1


class Cifar10Data(ClassificationSection):
    """CIFAR-10 in its binary layout: data_batch_*.bin, as many as there are, and test_batch.bin."""

    name: Literal["cifar10"]
    root: Path


class ImageFolderData(ClassificationSection):
    """One folder a class, with its images; in the root, or in train/ and, if there is one, test/."""

    name: Literal["image-folder"]
    root: Path
    size: Size
    """Every image is resized until it covers this, then its middle is cut out."""
    grey: bool = False
    test: Fraction = 0.2
    """Share of every class held out as the test set where there is no test/."""

    @property
    def channels(self) -> int:
        """As the recipe wants them."""
        return 1 if self.grey else 3


DataSpec = Annotated[
    VesselsData
    | StareData
    | ChaseData
    | DriveData
    | CamvidData
    | SegmentationFolderData
    | MnistData
    | Cifar10Data
    | ImageFolderData,
    Field(discriminator="name"),
]
