"""What a caller of `export` can get wrong. Every function raises ExportError."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import ExportError
from edgeslim.runtime.manifest import CHANNELS
from edgeslim.runtime.variants import FrameRange


def check_net(shape: tuple[int, ...], std: tuple[float, ...]) -> None:
    """The net must be one on RGB or grey images. shape: of the example it was traced with."""
    if len(shape) != 4 or shape[1] not in CHANNELS.values():
        raise ExportError(
            f"the net was traced on {shape}; a bundle holds nets on RGB images (N, 3, H, W) or grey ones (N, 1, H, W)"
        )
    if min(std) <= 0:
        raise ExportError(f"std is {std}; it divides, so it must be above 0", "0.25 is usual for photographs")


def check_frames(
    shape: tuple[int, ...], size_multiple: int, size: tuple[int, int] | None, frames: Sequence[NDArray[np.uint8]]
) -> None:
    """Frames must be what a camera delivers, in sizes that the net takes."""
    wanted = size or (shape[2], shape[3])
    if size_multiple < 1 or min(wanted) < 1 or any(side % size_multiple for side in wanted):
        raise ExportError(
            f"frames of {wanted[0]} x {wanted[1]} do not fit size_multiple {size_multiple}",
            "give the multiple that the net's strides demand, and a size divisible by it",
        )
    for frame in frames:
        if not isinstance(frame, np.ndarray):
            raise ExportError(f"a frame is a {type(frame).__name__}", f"give NumPy arrays (H, W, {shape[1]}) of uint8")
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != shape[1] or not frame.size:
            raise ExportError(f"a frame of {frame.dtype} {frame.shape}; frames are uint8 (H, W, {shape[1]})")


def check_range(frames: FrameRange | None, size_multiple: int) -> None:
    """Engines are built for sizes that the net takes."""
    for size in () if frames is None else (frames.minimum, frames.optimum, frames.maximum):
        if any(side % size_multiple for side in size[1:]):
            raise ExportError(
                f"frame_range has sides of {size[1]} x {size[2]}, the net takes multiples of {size_multiple}",
                "give a range whose ends are multiples",
            )


def colours(name: str, values: Sequence[float], shape: tuple[int, ...]) -> tuple[float, ...]:
    """A finite number a channel of the net: red, green, blue, or grey. shape: of the example it was traced with."""
    wanted = "one number: grey" if len(shape) > 1 and shape[1] == 1 else "three numbers: red, green, blue"
    try:
        found = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        raise ExportError(f"{name} is {values!r}", f"give {wanted}") from None
    if len(found) != (1 if wanted.startswith("one") else 3):
        raise ExportError(f"{name} is {values!r}", f"give {wanted}")
    if not all(map(math.isfinite, found)):
        raise ExportError(f"{name} is {values!r}", f"give finite numbers, {wanted}")
    return found


def numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics as plain numbers, all of them finite."""
    found = {}
    for name, value in metrics.items():
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            raise ExportError(f"metric {name} is {value!r}", "give numbers") from None
        if not math.isfinite(found[name]):
            raise ExportError(f"metric {name} is {value}", "leave out what could not be computed")
    return found


def check_words(
    files: Mapping[str, bytes], own: Collection[str], provenance: Mapping[str, str], classes: Sequence[str]
) -> None:
    """Names and texts. own: files that the exporter writes itself."""
    for name in own:
        if name in files:
            raise ExportError(f"{name} is written by export, not given in files", "rename yours")
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise ExportError(f"classes is {classes!r}", "give a list of names")
    for name, value in provenance.items():
        if not isinstance(value, str):
            raise ExportError(f"provenance {name} is {value!r}", "give text")
