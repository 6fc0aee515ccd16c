"""All that the limits of a target speak of, as functions of the families' widths.

Time, work, parameters and the file are sums over layers. Memory is the block that ONNX Runtime plans for activations:
no function of widths that a programme could take, so it is told the linear one of what is alive at once, scaled until
it agrees for the dense net. What it answers is cut and counted (`count_plan`, `counted.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeslim.bench.profile import LatencyModel, WidthSpace
from edgeslim.exporter.cost import count_macs, count_parameters, layer_costs
from edgeslim.exporter.memory import (
    as_written,
    estimate_memory,
    mac_terms,
    model_file,
    moments,
    parameter_terms,
    shipped_graph,
)
from edgeslim.exporter.passes.remove_channels import remove_channels

from .charges import latency_charges, memory_moments, size_charges
from .programme import Charge, Ladder, Moment, Problem, usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """charges: of every layer.  peak: moments of memory.  overhead_bytes: of the file, whatever the widths."""

    charges: tuple[Charge, ...]
    peak: tuple[Moment, ...]
    overhead_bytes: float

    def problem(self, ladders: Sequence[Ladder]) -> Problem:
        """The problem of these ladders, without limits."""
        return Problem(
            ladders=tuple(ladders),
            charges=self.charges,
            constants={"file": self.overhead_bytes} if self.overhead_bytes else {},
            moments={"memory": self.peak} if self.peak else {},
        )

    def usage(self, widths: Sequence[int]) -> dict[str, float]:
        """What a plan takes of every resource."""
        still = [Ladder(widths=(width,), values=(0.0,)) for width in widths]
        return usage(self.problem(still), widths)


def count_costs(space: WidthSpace, resources: Collection[str], model: LatencyModel | None) -> Costs:
    """The costs of a space. model: of the latency, where that is among the resources."""
    charges: list[Charge] = []
    channels, dense = space.channels, space.dense
    peak, overhead = tuple[Moment, ...](), 0.0
    if model is not None:
        charges += latency_charges(model)
    if "macs" in resources:
        charges += size_charges("macs", mac_terms(channels, layer_costs(channels.model, space.shape)), dense)
    if "parameters" in resources:
        charges += size_charges("parameters", parameter_terms(channels), dense)
    if "memory" in resources or "file" in resources:
        shipped = shipped_graph(channels, frames=space.takes_frames)
        if "memory" in resources:
            fed = next(iter(space.feeds.values())).shape
            alive = moments(channels, as_written(shipped, fed))
            block = estimate_memory(shipped, fed).arena_bytes
            peak = memory_moments(alive, block / max(alive.peak_bytes(np.array(dense, np.int64)), 1))
        if "file" in resources:
            file = model_file(channels, shipped)
            charges += size_charges("file", file.weights, dense)
            overhead = float(file.overhead_bytes)
    return Costs(charges=tuple(charges), peak=peak, overhead_bytes=overhead)


def count_plan(space: WidthSpace, cut: frozenset[int], resources: Collection[str]) -> dict[str, float]:
    """What the graph of a cut takes of resources that can be counted, by the same measures, exactly."""
    channels, found = space.channels, dict[str, float]()
    if "macs" in resources or "parameters" in resources:
        compact = remove_channels(channels.model, channels, cut)
        if "macs" in resources:
            found["macs"] = float(count_macs(compact, space.shape))
        if "parameters" in resources:
            found["parameters"] = float(count_parameters(compact, channels.parameters))
    if "memory" in resources or "file" in resources:
        shipped = shipped_graph(channels, cut, frames=space.takes_frames)
        if "memory" in resources:  # the block for activations, with the graph's outputs; see exporter.memory
            found["memory"] = float(estimate_memory(shipped, next(iter(space.feeds.values())).shape).arena_bytes)
        if "file" in resources:
            found["file"] = float(len(ir.to_proto(shipped).SerializeToString()))
    return found
