"""Take the dead channels out of a graph, exactly.

Round by round: analyse, judge, fold, analyse the folded graph, remove. What a round removes can kill more (a kernel
that only listened to dead channels becomes zero), so it goes on until nothing is left to remove.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.runtime.manifest import LayerCoverage

from .channels import ChannelMap, Coverage, analyze
from .channels.coverage import coverage, kind_of, names_of_values
from .channels.families import Unit
from .dead import Verdict, fold, judge
from .dead.arrivals import measure
from .foreign.feeds import Arrays
from .passes.remove_channels import remove_channels

_MOST_ROUNDS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Slimmed:
    """A graph without its dead channels. coverage: against the graph that was given; removed: units that left."""

    model: ir.Model
    coverage: Coverage
    removed: int


def remove_dead(model: ir.Model, inputs: Sequence[Arrays]) -> Slimmed:
    """Return `model` without the channels that are constant, or that nobody reads.

    inputs: full sets of graph inputs, at least two with different content, at every size that matters.
    Raises ExportError where ONNX Runtime cannot run the graph.
    """
    before = coverage(analyze(model, constants="record"))
    removed, staying = 0, dict[str, str]()
    for _ in range(_MOST_ROUNDS):
        channels = analyze(model, constants="record")
        verdict = judge(channels, lambda places, graph=model: measure(graph, places, inputs))  # type: ignore[misc]
        staying |= _reasons(channels, verdict)
        if not verdict.leaving:
            break
        compact, gone = _remove(fold(model, verdict), channels, verdict)
        if not gone:
            break
        model, removed = compact, removed + gone
    report = compare_widths(before, analyze(model), staying, whole="without dead channels")
    return Slimmed(model=model, coverage=report, removed=removed)


def compare_widths(
    before: Coverage, after: ChannelMap, staying: Mapping[str, str] | None = None, whole: str | None = None
) -> Coverage:
    """The report of a graph against what became of it.

    staying: layer -> why dead channels of it stayed. whole: what the summary calls layers that stay without a reason.
    """
    widths = {layer.layer: layer.width_after for layer in coverage(after)}
    values = names_of_values(after)

    def compared(layer: LayerCoverage) -> LayerCoverage:
        reason = layer.reason or (staying or {}).get(layer.layer)
        return LayerCoverage(
            layer=layer.layer,
            operator=layer.operator,
            width_before=layer.width_before,
            width_after=widths.get(layer.layer, layer.width_before),
            family=layer.family,
            reason=reason,
            kind=whole if reason is None else (layer.reason and layer.kind) or kind_of(reason, values),
        )

    return Coverage(map(compared, before))


def _remove(folded: ir.Model, before: ChannelMap, verdict: Verdict) -> tuple[ir.Model, int]:
    """Cut what leaves from the folded graph, whose analysis has labels of its own. Returns it and how many left."""
    channels = analyze(folded, constants="record")
    known = {_signature(u, before.initializer_axes): u.label for f in channels.families for u in f.units}
    leaving = [
        _signature(u, before.initializer_axes) for f in before.families for u in f.units if u.label in verdict.leaving
    ]
    cut = [known[signature] for signature in leaving if signature in known]
    if not cut:
        return folded, 0
    compact = remove_channels(folded, channels, cut)
    for old, new in zip(folded.graph.outputs, compact.graph.outputs):  # outputs keep their widths
        new.shape, new.type = old.shape, old.type
    return compact, len(cut)


def _signature(unit: Unit, names: Mapping[str, object]) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
    """A unit by its members; a bias that folding has added is left out."""
    return tuple(sorted((m.initializer, m.axis, m.indices) for m in unit.members if m.initializer in names))


def _reasons(channels: ChannelMap, verdict: Verdict) -> dict[str, str]:
    """Layer -> why dead channels of it stay."""
    found: dict[str, str] = {}
    for layer in channels.layers:
        roots: NDArray[np.int64] = channels.labels.find(layer.ids)
        reasons = dict.fromkeys(verdict.staying[r] for r in roots.tolist() if r in verdict.staying)
        if reasons:
            found[layer.layer] = "; ".join(reasons)
    return found
