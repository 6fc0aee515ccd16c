"""From scores to ladders: which of a family's units go first, and how much importance stays at every width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap

from .programme import Ladder

Ids = NDArray[np.int64]
Scores = NDArray[np.float64]
_LEAST = 1e-6
"""That any unit is worth beside the best one."""


def by_score(channels: ChannelMap, scores: Scores) -> list[tuple[Ids, Scores]]:
    """Of every family the labels, highest score first, with their scores. scores: (units,) as `unit_labels`.

    Finite ones are in the end shares of the highest. Where scores lie below zero all are lifted until the lowest is
    zero, and then by a millionth: to keep a unit is never a loss, and where nothing speaks against it a gain.
    """
    finite = np.isfinite(scores)
    shares = scores / (float(np.abs(scores[finite]).max(initial=0.0)) or 1.0)  # first, for sums of 1e308 are infinite
    lifted = shares - min(0.0, float(shares[finite].min(initial=0.0))) + _LEAST
    ends = np.cumsum([family.width for family in channels.families])
    found = []
    for family, given, own in zip(channels.families, np.split(scores, ends[:-1]), np.split(lifted, ends[:-1])):
        order = np.argsort(-given, kind="stable")
        found.append((family.labels[order], own[order]))
    return found


def ladder_of(scores: Scores, candidates: Sequence[int]) -> Ladder:
    """The ladder of a family. scores: of its units, descending; infinite ones stay, those of -infinity are gone."""
    stay, left = int(np.isposinf(scores).sum()), int((scores > -np.inf).sum())
    kept = np.cumsum(np.where(np.isfinite(scores), scores, 0.0))
    widths = sorted({width for width in candidates if max(1, stay) <= width < left} | {max(left, 1)})
    return Ladder(widths=tuple(widths), values=tuple(float(kept[width - 1]) for width in widths))
