"""Where ONNX Runtime puts every buffer in its one block, and how large the block becomes.

Buffers are placed as they are born, rounded up to 256 bytes, each into the smallest gap that it fits into: between
living ones, or behind the last, as far as the block has grown already. Where there is none, the block grows. Nothing
moves afterwards, so gaps stay, and the block is larger than what is ever alive in it: by a tenth as a rule, by more
where many sizes alternate. Outputs of the graph are not in the block, the caller keeps them.
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
    offsets, block = [0] * len(lives), 0
    taken: list[tuple[int, int, int]] = []  # offset, end, death
    for number in sorted(range(len(lives)), key=lambda n: lives[n].birth):
        life, size = lives[number], aligned(lives[number].bytes)
        taken = [span for span in taken if span[2] >= life.birth]
        if size:
            offsets[number] = _offset(taken, size, block)
            block = max(block, offsets[number] + size)
            insort(taken, (offsets[number], offsets[number] + size, life.death))
    return offsets


def aligned(size: int) -> int:
    """Bytes that a buffer takes of the block."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _offset(taken: Sequence[tuple[int, int, int]], size: int, block: int) -> int:
    """The start of the smallest gap that takes `size` bytes, or the end. taken: sorted, without overlap."""
    ends = [0, *(stop for _, stop, _ in taken)]
    starts = [*(start for start, _, _ in taken), block]
    gaps = [(start - end - size, end) for end, start in zip(ends, starts) if start - end >= size]
    return min(gaps)[1] if gaps else ends[-1]
