"""Where ONNX Runtime puts every buffer in its one block, and how large the block becomes.

Buffers are placed in the order in which they are born, rounded up to 256 bytes, each into the smallest gap between the
living ones that it fits into, else behind the last. Nothing moves afterwards, so gaps stay, and the block is larger
than what is ever alive in it: by a tenth as a rule, by more where many sizes alternate. Outputs of the graph are not in the
block, the caller keeps them.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

from .liveness import Life

ALIGNMENT = 256


def planned_bytes(lives: Sequence[Life]) -> int:
    """The block, and the outputs beside it."""
    inner = [life for life in lives if not life.leaves]
    ends = [offset + aligned(life.bytes) for life, offset in zip(inner, place(inner))]
    return max(ends, default=0) + sum(life.bytes for life in lives if life.leaves)


def place(lives: Sequence[Life]) -> list[int]:
    """The offset of each of these buffers in their block, in bytes."""
    offsets = [0] * len(lives)
    taken: list[tuple[int, int, int]] = []  # offset, end, death
    for number in sorted(range(len(lives)), key=lambda n: lives[n].birth):
        life, size = lives[number], aligned(lives[number].bytes)
        taken = [span for span in taken if span[2] >= life.birth]
        if size:
            offsets[number] = _offset(taken, size)
            insort(taken, (offsets[number], offsets[number] + size, life.death))
    return offsets


def aligned(size: int) -> int:
    """Bytes that a buffer takes of the block."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _offset(taken: Sequence[tuple[int, int, int]], size: int) -> int:
    """The start of the smallest gap that takes `size` bytes, or the end. taken: sorted, without overlap."""
    end, best, waste = 0, None, 0
    for start, stop, _ in taken:
        spare = start - end - size
        if spare >= 0 and (best is None or spare < waste):
            best, waste = end, spare
        end = max(end, stop)
    return end if best is None else best
