"""The activation arena of a graph before it has run: how much, when, and of what.

Two figures. `live_bytes`: what is alive at once in the graph as ONNX Runtime fuses it; it is exact where the runtime
frees every buffer for itself (memory patterns off). `arena_bytes`: the block that it plans by default, gaps included.
How far both are from what is measured is in docs/methods/latency.md, "Peak memory".
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
    """Of float32 graphs on this machine's CPU. shape: of the graph's first input. Raises ExportError.

    The graph is fused and its shapes are taken from one run, without weights or threads of a real session.
    """
    graph = as_fused(model, shape)
    own = liveness(graph)
    return Estimate(
        shape=shape,
        live_bytes=own.peak_bytes,
        arena_bytes=planned_bytes(liveness(graph, recycle=True).lives),
        peak=own.peak,
    )
