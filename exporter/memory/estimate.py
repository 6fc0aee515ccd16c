"""The activation arena of a graph before it has run: how much, when, and of what.

Two figures. `live_bytes`: the most that is alive at one node of the graph as ONNX Runtime fuses it, which says where
the memory goes. `arena_bytes`: the block that it plans from that, gaps included, with the outputs. How far both are
from what is measured is in docs/methods/latency.md, "Peak memory".
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from .liveness import Moment, liveness
from .offsets import planned_bytes
from .sized import as_fused


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of one input shape. peak: the node at which `live_bytes` are alive; None of a graph without nodes."""

    shape: tuple[int, ...]
    live_bytes: int
    arena_bytes: int
    peak: Moment | None


def estimate_memory(model: ir.Model, shape: tuple[int, ...]) -> Estimate:
    """Of a graph on this machine's CPU; float16, which a CPU casts, comes out too low.

    It is fused, and runs once on zeros for its shapes and the order of its nodes. shape: of the graph's first input.
    Raises ExportError where it does not run.
    """
    graph = as_fused(model, shape)
    own = liveness(graph)
    return Estimate(
        shape=shape,
        live_bytes=own.peak_bytes,
        arena_bytes=planned_bytes(liveness(graph, recycle=True).lives),
        peak=own.peak,
    )
