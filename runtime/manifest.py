"""The manifest: what a bundle holds, said so that a device can check it before it loads anything.

Writer and reader share these dataclasses. They are validated at birth and carry no time stamp, so one input
gives one text, to the byte. `schema` counts incompatible changes: a reader refuses what is newer than itself
before it looks at any other key, because a key it does not know would be the wrong complaint.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgeslim.errors import BundleError
from edgeslim.schema import SchemaError, from_json

from .certificate import Certificate
from .variants import FrameRange, Variant

SCHEMA = 3
"""The newest manifest this edgeslim reads, and the one it writes; older ones are read as ever.

2: `task`, grey images, and models stored without their zeros.  3: `frame_range` and `variants`.
"""
MANIFEST_NAME = "manifest.json"
DTYPES = frozenset(
    {
        "bool",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
    }
)

CHANNELS = {"RGB": 3, "grey": 1}
TaskName = Literal["segmentation", "classification"]

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[A-Za-z0-9.+!-]{1,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One graph input or output. `shape`: sizes, or names of the axes that may vary."""

    name: str
    dtype: str
    """NumPy's name of the element type, such as "uint8"."""
    shape: tuple[int | str, ...]
    layout: str = ""
    """One letter an axis ("NHWC"), N the batch; empty where it is not known."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"tensor {self.name!r}: dtype {self.dtype!r} is not one of {', '.join(sorted(DTYPES))}")
        if self.layout and len(self.layout) != len(self.shape):
            raise ValueError(f"tensor {self.name!r}: layout {self.layout!r} for {len(self.shape)} axes")
        if any(isinstance(size, int) and size < 0 for size in self.shape):
            raise ValueError(f"tensor {self.name!r}: shape {list(self.shape)} has a negative size")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """What happens to a frame before the first layer: (pixel / 255 - mean) / std, per channel."""

    colour: Literal["RGB", "grey"] = "RGB"
    """What the channels of a frame are: three, or a single one."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    embedded: bool = True
    """The graph itself takes uint8 (N, H, W, channels) frames and normalises them."""
    size_multiple: int = 1
    """H and W must be divisible by this."""

    @property
    def channels(self) -> int:
        """Of a frame."""
        return CHANNELS[self.colour]

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(
                f"image: {len(self.mean)} means and {len(self.std)} stds for {self.channels} channels ({self.colour})"
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0.0:
            raise ValueError(f"image: mean {self.mean} and std {self.std} must be finite, and std above 0")
        if self.size_multiple < 1:
            raise ValueError(f"image: size_multiple is {self.size_multiple}; it must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How big the net is. `macs` counts multiply-accumulates of one run at `macs_shape`.

    Weights are the elements of the kernels of convolutions and linear layers; biases and batch norms are none.
    """

    parameters: int
    dense_weights: int | None = None
    """Weights of the net before any channel was cut."""
    weights: int | None = None
    """Weights of the net in the bundle."""
    nonzero_weights: int | None = None
    """Those of them that are not zero."""
    weight_bytes: int | None = None
    """Bytes of all initializers of the graph."""
    macs: int | None = None
    macs_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.macs is None) != (self.macs_shape is None):
            raise ValueError("sizes: macs and macs_shape belong together, give both or neither")
        for name in ("parameters", "dense_weights", "weights", "nonzero_weights", "weight_bytes", "macs"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"sizes: {name} is {value}; it must be at least 0")
        if self.nonzero_weights is not None and (self.weights is None or self.nonzero_weights > self.weights):
            raise ValueError(f"sizes: {self.nonzero_weights} of {self.weights} weights are said to be not zero")

    @property
    def compression(self) -> float | None:
        """Weights of the dense net / weights that are not zero; None where that was not counted or none are left."""
        return self.dense_weights / self.nonzero_weights if self.dense_weights and self.nonzero_weights else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCoverage:
    """What became of one layer's output channels.

    reason: why the layer stayed as it was, with the operator and the node. kind: the same without the nodes' names, for
    counting.
    """

    layer: str
    operator: str
    width_before: int
    width_after: int
    family: str | None = None
    reason: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSpec:
    """The file of inputs and expected outputs, and how closely a device must reproduce them."""

    file: str = "golden.npz"
    atol: float
    rtol: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) and value >= 0.0 for value in (self.atol, self.rtol)):
            raise ValueError(f"golden: atol {self.atol} and rtol {self.rtol} must be finite and at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """What a file of the bundle must be."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 {self.sha256!r} is not 64 lower-case hexadecimal digits")
        if self.bytes < 0:
            raise ValueError(f"bytes is {self.bytes}; it must be at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseSpec:
    """The model is stored without its zeros: `file` is in the bundle, and what it restores must be `model`."""

    file: str = "model.sparse"
    model: FileEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything a program must know about a bundle without opening the graph."""

    schema: int = SCHEMA
    written_by: str = ""
    """The edgeslim version that wrote the bundle; the writer fills it in."""
    name: str
    model: str = "model.onnx"
    sparse: SparseSpec | None = None
    """How the model is stored, where it is not a file of its own; the writer fills it in."""
    golden: GoldenSpec | None = None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    image: ImageSpec
    bench_size: tuple[int, int]
    """(height, width) in pixels of the frame that a benchmark uses unless told otherwise."""
    frame_range: FrameRange | None = None
    """What engines are built for unless told otherwise; single frames of `bench_size` where None."""
    task: TaskName | None = None
    """What the first output says: logits (N, classes, H, W) of segmentation, or (N, classes) of classification."""
    classes: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    sizes: Sizes
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What the bundle was made from: name -> SHA-256, or a version."""
    certificate: Certificate
    coverage: tuple[LayerCoverage, ...] = ()
    variants: tuple[Variant, ...] = ()
    """The model in other precisions."""
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    """Every file but the manifest itself, by its path in the bundle; the writer fills it in."""

    def __post_init__(self) -> None:
        rank, shape = {"segmentation": 4, "classification": 2}, self.outputs[0].shape if self.outputs else ()
        if self.task is not None and self.outputs and len(shape) != rank[self.task]:
            raise ValueError(f"task {self.task} has an output of {rank[self.task]} axes, not {list(shape)}")
        names = [self.model, *self.files, *(v.file for v in self.variants)] + [
            spec.file for spec in (self.golden, self.sparse) if spec is not None
        ]
        for name in names:
            if not is_file_name(name) or name == MANIFEST_NAME:
                raise ValueError(f"file name {name!r} is not a plain relative path inside the bundle")
        if self.sparse is not None and self.model in self.files:
            raise ValueError(f"{self.model} is listed as a file, and {self.sparse.file} as what it is restored from")
        if not self.inputs or not self.outputs:
            raise ValueError("a bundle has at least one input and one output")
        for kind, specs in (("inputs", self.inputs), ("outputs", self.outputs)):
            if len({spec.name for spec in specs}) != len(specs):
                raise ValueError(f"{kind}: a name occurs twice in {[spec.name for spec in specs]}")
        if any(size < 1 or size % self.image.size_multiple for size in self.bench_size):
            multiple = self.image.size_multiple
            raise ValueError(f"bench_size {list(self.bench_size)} is not a positive multiple of {multiple}")
        for size in (
            (self.frame_range.minimum, self.frame_range.optimum, self.frame_range.maximum) if self.frame_range else ()
        ):
            if any(n % self.image.size_multiple for n in size[1:]):
                raise ValueError(f"frame_range {list(size)}: sides are no multiples of {self.image.size_multiple}")
        if len({v.name for v in self.variants} | {v.file for v in self.variants}) != 2 * len(self.variants):
            raise ValueError(f"variants: a name or file occurs twice in {[(v.name, v.file) for v in self.variants]}")
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"metrics: {name} is {value}; leave out what could not be computed")

    @property
    def stored_model(self) -> str:
        """The file that holds the model: as it is, or without its zeros."""
        return self.model if self.sparse is None else self.sparse.file

    @property
    def model_entry(self) -> FileEntry | None:
        """Size and hash of the model itself, however it is stored; None before the writer has filled them in."""
        return self.files.get(self.model) if self.sparse is None else self.sparse.model


def is_file_name(name: str) -> bool:
    """True for a plain relative path: no "..", no leading "/" or ".", no backslash, nothing exotic."""
    return len(name) <= 255 and _FILE_NAME.fullmatch(name) is not None


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest's text; `where` names the bundle in errors.

    Raises BundleError for text that is no manifest, a newer schema, or any key or value out of place.
    """
    place = f"{where}: {MANIFEST_NAME}"
    try:
        table = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{place} is not JSON: {error}", "the bundle is damaged: copy or export it again") from error
    schema = table.get("schema") if isinstance(table, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise BundleError(
            f"{place} has schema {schema!r:.40}, a bundle's manifest has a number from 1",
            "give the path of a bundle written by `edgeslim export` or `edgeslim compress`",
        )
    if schema > SCHEMA:
        raise BundleError(*_newer(place, schema, table.get("written_by")))
    try:
        return from_json(Manifest, table)
    except (SchemaError, OverflowError) as error:
        raise BundleError(f"{place}: {error}", "the bundle is damaged or was edited: export it again") from error


def _newer(place: str, schema: int, written_by: object) -> tuple[str, str]:
    """Message and hint for a manifest from the future, in which nothing is sure to be well formed."""
    known = isinstance(written_by, str) and _VERSION.fullmatch(written_by)
    writer = f"edgeslim {written_by}" if known else "a newer edgeslim"
    install = f"'edgeslim>={written_by}'" if known else "--upgrade edgeslim"
    return (
        f"{place} has schema {schema}, written by {writer}; this edgeslim reads up to schema {SCHEMA}",
        f"{writer} reads it: pip install {install}, or export the bundle again with this version",
    )
