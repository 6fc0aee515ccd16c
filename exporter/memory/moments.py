"""The peak of activation memory as a maximum of linear functions of the widths, for a planner.

Which values are alive at a node does not depend on widths, and a value's bytes are linear in the widths of the families
on its channel axis. So for every plan

    peak(w) = max over moments (constant[m] + per_unit[m] @ w)

equals what `liveness` says of the compact graph of that plan. A moment that another one exceeds in its constant and in
all coefficients can never be the peak, and is dropped; a handful is left of a net with hundreds of nodes.

The function is that of the graph as written, without blocked layout. Where the CPU has one, channels are padded to full
blocks and other widths make copies: a staircase, of which this is the lower edge, reached at multiples of 16. Those are
the widths worth planning (docs/adr/0008-width-multiple-sixteen.md).

A value with families on two axes (a product of channels with channels) counts with its longer axis alone, the other one
at full length: never too little.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..channels import ChannelMap
from ..passes.embed_preprocess import embed_preprocess
from ..passes.plain_zeros import plain_zeros
from ..passes.remove_channels import remove_channels
from ..passes.simplify import simplify
from .liveness import Life, liveness
from .sized import SizedGraph
from .widths import Amounts, FamilyIndex, Widths


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Bytes at the nodes that can hold the peak.

    nodes: names of their first outputs.  constant: (moments,) float64.  per_unit: (moments, families) float64.
    """

    families: tuple[str, ...]
    nodes: tuple[str, ...]
    constant: Amounts
    per_unit: Amounts

    def bytes_at(self, widths: Widths) -> Amounts:
        """(moments,) bytes when the families have these widths."""
        if widths.shape != (len(self.families),):
            raise ValueError(f"widths has the shape {widths.shape}, there are {len(self.families)} families")
        return self.constant + self.per_unit @ widths.astype(np.float64)

    def peak_bytes(self, widths: Widths) -> int:
        """The most that is alive at once when the families have these widths."""
        return round(float(self.bytes_at(widths).max(initial=0.0)))


def shipped_graph(channels: ChannelMap, cut: Collection[int] = (), *, frames: bool = True) -> ir.Model:
    """The graph that an export ships when these units are cut, with the weights of the trace.

    frames: it reads the camera's frames, as bundles do; an ONNX file that is only slimmed keeps its own input.
    """
    shipped = plain_zeros(simplify(remove_channels(channels.model, channels, cut)).model)
    if not frames:
        return shipped
    image = shipped.graph.inputs[0].shape
    colours = image[1] if image is not None and len(image) == 4 else 0
    count = colours if isinstance(colours, int) else 0
    return embed_preprocess(shipped, (0.0,) * count, (1.0,) * count)


def moments(channels: ChannelMap, graph: SizedGraph) -> Moments:
    """The moments of a dense graph that can be the peak of some plan.

    graph: of `shipped_graph(channels)`, or of the traced graph itself, at the size of the frames.
    """
    index, alive = FamilyIndex(channels), liveness(graph)
    count = len(alive.nodes)
    change = np.zeros((count + 1, 1 + len(index.names)))
    for life in alive.lives:
        terms = _bytes(life, channels, graph, index)
        change[0 if life.leaves else life.birth] += terms
        change[count if life.leaves else life.death + 1] -= terms
    rows = np.cumsum(change[:-1], axis=0)
    rows = np.maximum(np.round(rows, 6), 0.0)  # what a sum of floats leaves behind of a buffer that is gone
    kept = _undominated(rows)
    return Moments(
        families=index.names,
        nodes=tuple(alive.nodes[i][0] for i in kept),
        constant=rows[kept, 0],
        per_unit=rows[kept, 1:],
    )


def _bytes(life: Life, channels: ChannelMap, graph: SizedGraph, index: FamilyIndex) -> Amounts:
    """(1 + families,): constant and per unit. A buffer is as large as the first value that it holds."""
    own = next((ids for value in life.values if (ids := channels.value_ids.get(graph.origin(value)))), ())
    axes = [(len(ids), terms) for ids in own if ids is not None and (terms := index.axis(ids)).varies]
    if not axes:
        return np.array([life.bytes, *[0.0] * len(index.names)])
    length, terms = max(axes, key=lambda axis: axis[0])
    return life.bytes / length * np.array([terms.fixed, *terms.per_unit])


def _undominated(rows: Amounts) -> list[int]:
    """The rows that no other one reaches in all columns, the first of equal ones, in their order."""
    _, first = np.unique(rows, axis=0, return_index=True)
    order = first[np.argsort(-rows[first].sum(axis=1), kind="stable")]  # what dominates has the larger sum
    kept: list[int] = []
    for row in order.tolist():
        if not kept or not (rows[kept] >= rows[row]).all(axis=1).any():
            kept.append(row)
    return sorted(kept)
