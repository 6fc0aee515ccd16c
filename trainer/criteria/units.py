"""From scores of single channels to scores of units: channels that live and die together are scored together.

    normalisation   so that layers can be compared: s / mean of the layer, s / max, s / |s|_2, (s - mean) / deviation
    reduction       over all channels of a unit: sum, mean, max, or the first in the order of the graph
    ranking         global: these numbers. local: a unit's rank within its family, in (0, 1]; equal ones share a rank

A budget of MACs compares units of different families, and there ranking decides: global lets weak families lose more,
local takes the same share of each where their channels cost the same. A ratio budget ranks within families anyway.

The sum is the default because such a budget weighs a unit's score against the MACs that it saves: a channel of a
residual stream saves them in every layer that it runs through, and by the mean of its scores it would look as dear as
one channel of one layer. Streams then went first, down to almost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.channels.labels import Ids

from ..options import check_choice

Scores = NDArray[np.float64]
Reduction = Literal["mean", "sum", "max", "first"]
Normalisation = Literal["none", "mean", "max", "l2", "standard"]
Ranking = Literal["local", "global"]


class Scored(Protocol):
    """What a criterion looks at: the analysis, and the analysed graph with the weights of the moment."""

    @property
    def graph(self) -> ir.Model: ...
    @property
    def channels(self) -> ChannelMap: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """How scores of channels become scores of units; see the module docstring."""

    reduction: Reduction = "sum"
    normalisation: Normalisation = "mean"
    ranking: Ranking = "global"

    def __post_init__(self) -> None:
        check_choice("pooling", "reduction", self.reduction, get_args(Reduction))
        check_choice("pooling", "normalisation", self.normalisation, get_args(Normalisation))
        check_choice("pooling", "ranking", self.ranking, get_args(Ranking))

    def over_units(self, channels: ChannelMap, observed: Iterable[tuple[Ids, Scores]]) -> Scores:
        """One score per unit from everything that was observed of its channels.

        observed: (root labels (C,), scores (C,)) per feature map or kernel, in the order of the graph. Returns (units,)
        float64 in the order of `channels.unit_labels`; a unit that nobody observed scores infinity and is kept.
        """
        labels = channels.unit_labels
        place = np.full(len(channels.labels), -1, np.int64)
        place[labels] = np.arange(len(labels))
        pairs = [(place[ids], normalised(scores, self.normalisation)) for ids, scores in observed]
        units = np.concatenate([np.empty(0, np.int64), *(own for own, _ in pairs)])
        values = np.concatenate([np.empty(0), *(scores for _, scores in pairs)])
        known = units >= 0
        pooled = reduced(units[known], values[known], len(labels), self.reduction)
        return ranked(channels, pooled) if self.ranking == "local" else pooled


RELATIVE = Pooling()
"""For scores that only mean something within their layer."""
ABSOLUTE = Pooling(normalisation="none")
"""For scores that mean the same in every layer, such as shares of one total, the loss."""


def normalised(scores: Scores, law: Normalisation) -> Scores:
    """Scores of one layer (C,), comparable with those of other layers. A layer of zeros stays zeros."""
    if law == "none" or not len(scores):
        return scores
    if law == "standard":
        return np.asarray((scores - scores.mean()) / max(float(scores.std()), 1e-30))
    size = {"mean": scores.mean(), "max": scores.max(), "l2": np.sqrt(np.square(scores).sum())}[law]
    return np.asarray(scores / max(float(size), 1e-30))


def reduced(units: NDArray[np.int64], values: Scores, count: int, law: Reduction) -> Scores:
    """One number for each of `count` units: values[i] belongs to units[i]. Infinity where there is none."""
    seen = np.bincount(units, minlength=count)
    if law == "first":
        pooled = np.zeros(count)
        pooled[units[::-1]] = values[::-1]
    elif law == "max":
        pooled = np.full(count, -np.inf)
        np.maximum.at(pooled, units, values)
    else:
        pooled = np.zeros(count)
        np.add.at(pooled, units, values)
        pooled = pooled / np.maximum(seen, 1) if law == "mean" else pooled
    return np.where(seen > 0, pooled, np.inf)


def ranked(channels: ChannelMap, scores: Scores) -> Scores:
    """Each unit's mean rank within its family over the family's width, in (0, 1]; infinity stays infinity."""
    found, start = scores.copy(), 0
    for family in channels.families:
        own = scores[start : start + family.width]
        _, inverse, counts = np.unique(own, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        ranks = (last - (counts - 1) / 2)[inverse] / family.width
        found[start : start + family.width] = np.where(np.isposinf(own), np.inf, ranks)
        start += family.width
    return found
