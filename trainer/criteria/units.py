"""From scores of single channels to scores of units: coupled channels are scored together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.channels.families import Unit
from edgeslim.exporter.channels.labels import Ids


class Scored(Protocol):
    """What a criterion looks at: the analysis, and the analysed graph with the weights of the moment."""

    @property
    def graph(self) -> ir.Model: ...
    @property
    def channels(self) -> ChannelMap: ...


def units(channels: ChannelMap) -> list[Unit]:
    """All units, family by family: the order of every score array."""
    return [unit for family in channels.families for unit in family.units]


def mean_over_units(channels: ChannelMap, observed: Iterable[tuple[Ids, NDArray[np.float64]]]) -> NDArray[np.float64]:
    """The mean of everything observed of each unit.

    observed: (root labels (C,), scores (C,)) per feature map or kernel. Returns (units,) float64; a unit that nobody
    observed scores infinity and is kept.
    """
    every = units(channels)
    totals: dict[int, float] = {unit.label: 0.0 for unit in every}
    counts: dict[int, int] = {unit.label: 0 for unit in every}
    for ids, scores in observed:
        for label, score in zip(ids.tolist(), scores.tolist()):
            if label in totals:
                totals[label] += score
                counts[label] += 1
    return np.array([totals[u.label] / counts[u.label] if counts[u.label] else np.inf for u in every])
