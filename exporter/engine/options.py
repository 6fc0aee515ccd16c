"""What somebody may ask of an engine builder, and what is refused before anything is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edgeslim.errors import ConfigError
from edgeslim.runtime.engines import EngineBackend
from edgeslim.runtime.variants import MODEL, FrameRange

Compatibility = Literal["none", "ampere-plus", "same-compute-capability"]

_SIZE = re.compile(r"(\d+)x(\d+)x(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How an engine is built. None leaves TensorRT's own default."""

    backend: EngineBackend = "tensorrt"
    precision: str = MODEL
    """Which graph of the bundle: "fp32", or the name of a variant."""
    targets: tuple[str, ...] = ()
    """Compute capabilities ("86", "89") to build for on any machine; TensorRT for RTX only."""
    frames: FrameRange | None = None
    """Batches that the engine takes; the manifest's where None."""
    workspace_bytes: int | None = None
    """The most scratch memory that any layer may use."""
    tactic_bytes: int | None = None
    """The most memory that may be used to try out a kernel."""
    max_tactics: int | None = None
    """How many kernels are tried out for a layer, where TensorRT can limit it."""
    level: int | None = None
    """Builder optimization level, 0 (quick to build) to 5 (tries most)."""
    tf32: bool = False
    """Let fp32 convolutions round what they read to 10 bits: faster, and less exact than the certificate."""
    sparse: bool | None = None
    """Use kernels for 2:4 sparse weights; None: where the graph has such weights."""
    dla_core: int | None = None
    """Build for this deep-learning accelerator of a Jetson."""
    gpu_fallback: bool = True
    """Let layers that the accelerator does not know run on the GPU."""
    compatibility: Compatibility = "none"
    """For which other GPUs the engine shall be usable."""
    version_compatible: bool = False
    """Let later TensorRT versions load the engine."""
    timing_cache: bool = True
    """Keep timings of kernels beside the engines, so that the next build is quicker."""

    def __post_init__(self) -> None:
        for name, least in (("workspace_bytes", 1), ("tactic_bytes", 1), ("max_tactics", 1), ("dla_core", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}", "leave it out for the default")
        if self.level is not None and not 0 <= self.level <= 5:
            raise ConfigError(f"the optimization level is {self.level}; it goes from 0 to 5", "3 is TensorRT's own")
        for target in self.targets:
            if not re.fullmatch(r"\d{2,3}", target):
                raise ConfigError(f"{target!r} is no compute capability", "give two or three digits, such as 86 or 120")
        if self.targets and self.backend != "tensorrt-rtx":
            raise ConfigError(
                f"{self.backend} builds for the GPU of the machine it runs on, not for {', '.join(self.targets)}",
                "run `edgeslim build` on the device (--remote ssh://user@device), or use --backend tensorrt-rtx",
            )


def parse_frames(text: str) -> FrameRange:
    """ "1x192x192", or "1x96x96:1x192x192:4x384x384" (smallest, usual, largest; each batch x height x width).

    Raises ConfigError.
    """
    parts = [_SIZE.fullmatch(part.strip()) for part in text.lower().split(":")]
    if len(parts) not in (1, 3) or None in parts:
        raise ConfigError(
            f"{text!r} says no frames: give BATCHxHEIGHTxWIDTH once, or three times with : between them",
            "for example 1x192x192, or 1x96x96:1x192x192:4x384x384 (smallest, usual, largest)",
        )
    sizes = [tuple(map(int, part.groups())) for part in parts if part is not None]
    low, usual, high = (sizes * 3)[:3] if len(sizes) == 1 else sizes
    try:
        return FrameRange(minimum=low, optimum=usual, maximum=high)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(str(error), "each of the three is at least as large as the one before") from error


def parse_targets(text: str | None) -> tuple[str, ...]:
    """ "86,89" -> ("86", "89"), sorted, without repetitions; dots and a leading sm are taken as well."""
    words = [
        word.strip().lower().removeprefix("sm").replace(".", "").replace("_", "") for word in (text or "").split(",")
    ]
    return tuple(sorted({word for word in words if word}, key=lambda word: (len(word), word)))


def parse_bytes(text: str, option: str) -> int:
    """ "512M", "2G", "1048576" -> bytes, in steps of 1024. Raises ConfigError naming `option`."""
    found = re.fullmatch(r"(\d+)\s*([kmg]?)(i?b)?", text.strip().lower())
    if found is None or int(found[1]) == 0:
        raise ConfigError(f"{option} {text!r} is no size", "for example 512M or 2G")
    return int(found[1]) * {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}[found[2]]
