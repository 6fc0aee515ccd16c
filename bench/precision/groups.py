"""Groups of neighbouring layers, which change their precision together.

A layer by itself pays for a conversion before and behind it, so single layers tell little about a net. Neighbours share
those conversions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """layers: names of weights, in order of computation."""

    name: str
    layers: tuple[str, ...]


def neighbours(layers: Sequence[str], most: int) -> tuple[Group, ...]:
    """At most `most` groups of layers that follow one another, as equally large as it goes."""
    count = min(most, len(layers))
    if not count:
        return ()
    parts = [tuple(str(name) for name in part) for part in np.array_split(np.array(layers, dtype=object), count)]
    first, groups = 1, []
    for part in parts:
        last = first + len(part) - 1
        groups.append(Group(name=f"layers {first}-{last}" if last > first else f"layer {first}", layers=part))
        first = last + 1
    return tuple(groups)
