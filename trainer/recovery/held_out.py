"""Which calibration inputs are fitted to, which decide, and on which the outcome is reported.

Rows of one input resemble each other, so whole inputs are parted where there are enough of them, else rows.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.exporter.foreign.feeds import Arrays

FEWEST_INPUTS = 5
"""With fewer inputs than parts need, rows of the same inputs are parted."""

LARGEST_BATCH = 64


class Part(enum.IntEnum):
    """What rows and inputs are for."""

    FIT = 0
    CHOOSE = 1
    REPORT = 2


def parts(count: int) -> NDArray[np.int64]:
    """(count,) of five in a row three are fitted, one is chosen by, one is reported on: spread evenly."""
    return np.resize(np.array([Part.FIT, Part.CHOOSE, Part.FIT, Part.REPORT, Part.FIT], np.int64), count)


def image_batches(graph: ir.Model, images: NDArray[np.float32]) -> list[Arrays]:
    """Images (N, C, H, W) as inputs of a net with one input, in batches.

    Enough of them that some can be kept aside, and large enough to be worth their while; where the net has a batch size
    of its own, that is taken, and what is left over is not used.
    """
    feed = graph.graph.inputs[0]
    own = feed.shape[0] if feed.shape is not None and len(feed.shape) else None
    size = own if isinstance(own, int) else max(1, min(LARGEST_BATCH, len(images) // FEWEST_INPUTS))
    whole = len(images) // size * size if isinstance(own, int) else len(images)
    return [{feed.name or "": images[start : start + size]} for start in range(0, whole, size)]


def of_part(inputs: Sequence[Arrays], *wanted: Part) -> Sequence[Arrays]:
    """The inputs of these parts; all of them where there are too few to part."""
    if len(inputs) < FEWEST_INPUTS:
        return inputs
    return [given for given, own in zip(inputs, parts(len(inputs))) if own in wanted]
