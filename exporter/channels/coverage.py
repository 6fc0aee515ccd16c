"""The coverage report: for every layer its width before and after, or the reason it stayed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np

from edgeslim.runtime.manifest import LayerCoverage

from .analyze import ChannelMap, LayerWidth
from .labels import Flags


class Coverage(tuple[LayerCoverage, ...]):
    """One entry per layer with weights, in graph order."""

    __slots__ = ()

    @property
    def summary(self) -> str:
        """One line: how many layers were pruned, and why the others were not."""
        kinds: Counter[str] = Counter()
        cut = 0
        for layer in self:
            if layer.width_after < layer.width_before:
                cut += 1
            else:
                kinds[layer.kind or "kept whole by the plan"] += 1
        kept = sum(kinds.values())
        why = "; ".join(f"{n} {kind}" for kind, n in kinds.most_common(3))
        more = f"; and {len(kinds) - 3} more reasons" if len(kinds) > 3 else ""
        return f"pruned {cut} of {len(self)} layers" + (f"; {kept} kept: {why}{more}" if kept else "")


def coverage(channels: ChannelMap, cut: Collection[int] = ()) -> Coverage:
    """The report for a plan that cuts the units with the root labels `cut`."""
    families = {label: family.name for family in channels.families for label in family.labels.tolist()}
    living = channels.living(cut)
    values = names_of_values(channels)
    layers = {layer.layer: layer for layer in reversed(channels.layers)}  # one that is used twice is one layer
    return Coverage(_describe(layer, channels, living, families, values) for layer in reversed(layers.values()))


def _describe(
    layer: LayerWidth, channels: ChannelMap, living: Flags, families: dict[int, str], values: set[str]
) -> LayerCoverage:
    roots = channels.labels.find(layer.ids).tolist()
    names = dict.fromkeys(families[r] for r in roots if r in families)
    reasons = dict.fromkeys(channels.pinned[r] for r in roots if r in channels.pinned)
    width = layer.width
    gone = int(np.count_nonzero(~living[layer.ids])) if roots else 0
    reason = "; ".join(reasons) or layer.fixed_reason or None
    return LayerCoverage(
        layer=layer.layer,
        operator=layer.operator,
        width_before=width,
        width_after=width - gone,
        family=", ".join(names) or None,
        reason=reason,
        kind=None if reason is None else kind_of(reason, values),
    )


def names_of_values(channels: ChannelMap) -> set[str]:
    """What reasons call nodes by."""
    return {value.name for node in channels.model.graph for value in node.outputs if value.name}


def kind_of(reason: str, values: Collection[str]) -> str:
    """A reason without the nodes it names: "read by Conv conv2d_7, where ..." becomes "read by Conv, where ..."."""
    kept: list[str] = []
    for word in reason.split(" "):
        bare = word.rstrip(",;:")
        if bare in values and kept:
            kept[-1] += word[len(bare) :]
        else:
            kept.append(word)
    return " ".join(kept)
