"""From scores of single channels to scores of units: coupled channels are scored together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.channels.labels import Ids


class Scored(Protocol):
    """What a criterion looks at: the analysis, and the analysed graph with the weights of the moment."""

    @property
    def graph(self) -> ir.Model: ...
    @property
    def channels(self) -> ChannelMap: ...


def mean_over_units(channels: ChannelMap, observed: Iterable[tuple[Ids, NDArray[np.float64]]]) -> NDArray[np.float64]:
    """The mean of everything observed of each unit.

    observed: (root labels (C,), scores (C,)) per feature map or kernel. Returns (units,) float64 in the order of
    `channels.unit_labels`; a unit that nobody
    observed scores infinity and is kept.
    """
    labels = channels.unit_labels
    place = np.full(len(channels.labels), -1, np.int64)
    place[labels] = np.arange(len(labels))
    totals, counts = np.zeros(len(labels)), np.zeros(len(labels), np.int64)
    for ids, scores in observed:
        known = place[ids] >= 0
        np.add.at(totals, place[ids][known], scores[known])
        np.add.at(counts, place[ids][known], 1)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.inf)
