"""Where ONNX Runtime puts every buffer in its one block, and how large the block becomes.

Buffers are placed in the order in which they are born, rounded up to 256 bytes, each into the smallest gap between the
living ones that it fits into, else behind the last. Nothing moves afterwards, so gaps stay, and the block is larger
than what is ever alive in it: by a tenth as a rule, by more where many sizes alternate. Outputs of the graph are not in the
block, the caller keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence

from .liveness import Life

ALIGNMENT = 256


def planned_bytes(lives: Sequence[Life]) -> int:
    """The block, and the outputs beside it."""
    placed: list[tuple[int, int, int]] = []  # offset, end, death
    block = 0
    for life in sorted((life for life in lives if not life.leaves), key=lambda life: life.birth):
        size = -(-life.bytes // ALIGNMENT) * ALIGNMENT
        if not size:
            continue
        placed = [span for span in placed if span[2] >= life.birth]
        offset = _offset(placed, size)
        placed.append((offset, offset + size, life.death))
        placed.sort()
        block = max(block, offset + size)
    return block + sum(life.bytes for life in lives if life.leaves)


def _offset(placed: Sequence[tuple[int, int, int]], size: int) -> int:
    """The start of the smallest gap that takes `size` bytes, or the end. placed: sorted, without overlap."""
    end, best, waste = 0, None, 0
    for start, stop, _ in placed:
        spare = start - end - size
        if spare >= 0 and (best is None or spare < waste):
            best, waste = end, spare
        end = max(end, stop)
    return end if best is None else best
