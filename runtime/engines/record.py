"""What an engine was built from, for which device, and what was found when it was run: the JSON beside the engine.

An engine fits one model, one TensorRT, one kind of GPU and one choice of options; all of them are in `EngineSpec`, and
its SHA-256 is the engine's key. Whatever changes the engine changes the key, so a stale engine is never found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgeslim.schema import to_json

from ..golden import GoldenReport
from ..manifest import FileEntry
from ..variants import FrameRange

SCHEMA = 1
"""The newest record this edgeslim reads, and the one it writes."""

EngineBackend = Literal["tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """Everything that an engine depends on. None: not known, or not asked for."""

    onnx_sha256: str
    """Of the typed graph it was built from."""
    backend: EngineBackend
    version: str
    """TensorRT's own."""
    targets: tuple[str, ...] = ()
    """Compute capabilities such as "86" that it was built for elsewhere; empty for the GPU of this machine."""
    compute_capability: str | None = None
    """That of the GPU it was built on, such as "8.7"."""
    gpu: str | None = None
    board: str | None = None
    driver: str | None = None
    precision: str
    """The name of the graph in the bundle: "fp32" or a variant's."""
    frames: FrameRange
    dla_core: int | None = None
    flags: tuple[str, ...] = ()
    """Builder flags that were set, sorted."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further builder settings, by TensorRT's name."""

    @property
    def key(self) -> str:
        """SHA-256 of all of it, as hexadecimal digits."""
        text = json.dumps(to_json(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def where(self) -> str:
        """The GPU it is for, in a word: "sm87", or "sm86+sm89"."""
        capabilities = self.targets or ((self.compute_capability or "").replace(".", ""),)
        return "+".join(f"sm{c}" if c else "gpu" for c in capabilities)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """An engine's sidecar."""

    schema: int = SCHEMA
    written_by: str
    key: str
    spec: EngineSpec
    engine: FileEntry
    """Size and hash of the engine file."""
    bundle: str
    """The bundle's name."""
    manifest_sha256: str
    build_seconds: float
    golden: GoldenReport | None
    """The bundle's golden vectors, run on the engine; None where it could not be run, see `unchecked`."""
    validation: Mapping[str, float] = field(default_factory=dict)
    """Scores on the validation set, where one was given."""
    unchecked: str | None = None
    """Why the engine was not run after it was built."""
    on_gpu: Mapping[str, str] = field(default_factory=dict)
    """With a DLA core: layers that fell back to the GPU -> the reason, as far as TensorRT tells."""
    notes: tuple[str, ...] = ()
    """What a person should know: retries with less memory, TensorRT's warnings."""

    def __post_init__(self) -> None:
        if self.key != self.spec.key:
            raise ValueError(f"key {self.key} is not that of the record's own content, {self.spec.key}")
        if (self.golden is None) != (self.unchecked is not None):
            raise ValueError("golden and unchecked exclude each other, and one of them is due")

    @property
    def checked(self) -> bool:
        """Whether the engine has been run on the golden vectors."""
        return self.golden is not None
