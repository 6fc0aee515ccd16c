"""The batches of frames that a net is proven on, and the golden vectors that travel with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeslim.runtime.golden import GoldenCase
from edgeslim.runtime.manifest import GoldenSpec

from .bundle import golden_bytes
from .certificate import Tolerance

if TYPE_CHECKING:
    from .export import Exportable

GOLDEN = "golden.npz"
Frames = Sequence[NDArray[np.uint8]]
"""Camera frames, each (H, W, C) uint8, RGB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Golden vectors as a file, and how closely a device must follow them."""

    data: bytes
    spec: GoldenSpec


def frame_batches(frames: Frames, pruned: Exportable, size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Batches of one and two at the example's size and, where the graph allows it, at the size of a camera frame."""
    batch, _, height, width = pruned.graph.graph.inputs[0].shape or (0, 0, 0, 0)
    sizes = [(pruned.input_shape[2], pruned.input_shape[3])]
    if not isinstance(height, int) and not isinstance(width, int):
        other = size if size != sizes[0] else _second_size(size)
        if _runs(pruned, other):
            sizes.append(other)
    counts = (1, 2) if not isinstance(batch, int) else (batch,)
    source = list(frames) or [_random_frame(size, pruned.input_shape[1], s) for s in range(2)]
    return [np.stack([_crop(source[i % len(source)], s) for i in range(count)]) for s in sizes for count in counts]


def _second_size(size: tuple[int, int]) -> tuple[int, int]:
    """Another size that nets with strides up to 32 accept, and not square where the first is."""
    height, width = size
    return (height // 64 * 32 or 32, (width // 64 * 32 or 32) + 32)


def _runs(pruned: Exportable, size: tuple[int, int]) -> bool:
    """Whether the masked net itself accepts this size (a net may demand more than a multiple of 32)."""
    try:
        pruned.references().masked(np.zeros((1, pruned.input_shape[1], *size), np.float32))
    except Exception:  # any failure of a user's forward means "not this size"; the certificate states the sizes used
        return False
    return True


def _random_frame(size: tuple[int, int], channels: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)


def _crop(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle (height, width) of a frame, mirrored at the far edges where it is smaller."""
    height, width = size
    below, right = max(0, height - frame.shape[0]), max(0, width - frame.shape[1])
    if below or right:
        frame = np.pad(frame, ((0, below), (0, right), (0, 0)), mode="symmetric")
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    return frame[top : top + height, left : left + width]


def golden_vectors(model: bytes, batches: Sequence[NDArray[np.uint8]], size: tuple[int, int]) -> Golden:
    """Batches with what the shipped model answers here, and how closely a device must follow.

    The two smallest, and one of the benchmark's `size`, for an engine may take that alone.
    """
    session = onnxruntime.InferenceSession(model)
    names = [o.name for o in session.get_outputs()]
    cases, largest = [], 0.0
    ordered = sorted(batches, key=lambda b: b.size)
    usual = [b for b in ordered if b.shape[1:3] == size][:1]
    for batch in {b.shape: b for b in (*ordered[:2], *usual)}.values():
        outputs = session.run(names, {session.get_inputs()[0].name: batch})
        largest = max([largest, *(float(np.abs(o).max(initial=0.0)) for o in outputs)])
        cases.append(GoldenCase(inputs={session.get_inputs()[0].name: batch}, outputs=dict(zip(names, outputs))))
    tolerance = Tolerance()
    spec = GoldenSpec(file=GOLDEN, atol=5 * tolerance.relative_atol * largest, rtol=5 * tolerance.rtol)
    return Golden(data=golden_bytes(cases), spec=spec)
