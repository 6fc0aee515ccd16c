"""From scores to ladders: which of a family's units go first, and how much importance stays at every width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap

from .programme import Ladder

Ids = NDArray[np.int64]
Scores = NDArray[np.float64]


def by_score(channels: ChannelMap, scores: Scores) -> list[tuple[Ids, Scores]]:
    """Of every family the labels, highest score first, with their scores. scores: (units,) as `unit_labels`.

    Where scores lie below zero all are lifted until the lowest is zero: to keep a unit is never a loss.
    """
    lifted = scores - min(0.0, float(scores[np.isfinite(scores)].min(initial=0.0)))
    ends = np.cumsum([family.width for family in channels.families])
    found = []
    for family, own in zip(channels.families, np.split(lifted, ends[:-1])):
        order = np.argsort(-own, kind="stable")
        found.append((family.labels[order], own[order]))
    return found


def ladder_of(scores: Scores, candidates: Sequence[int]) -> Ladder:
    """The ladder of a family. scores: of its units, descending; infinite ones stay, those of -infinity are gone."""
    stay, left = int(np.isposinf(scores).sum()), int((scores > -np.inf).sum())
    kept = np.cumsum(np.where(np.isfinite(scores), scores, 0.0))
    widths = sorted({width for width in candidates if max(1, stay) <= width < left} | {max(left, 1)})
    return Ladder(widths=tuple(widths), values=tuple(float(kept[width - 1]) for width in widths))
