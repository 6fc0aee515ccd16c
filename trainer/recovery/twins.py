"""A channel that leaves, and says a multiple of what another says, is merged into its twin.

    x_f = a x_g   =>   w[o, f] x_f + w[o, g] x_g = (w[o, g] + a w[o, f]) x_g

exactly, padding included. Maps are never quite proportional: a = <x_f, x_g> / <x_g, x_g> is the best multiple, and the
twin of f is the living channel with the largest |cos(x_f, x_g)|, if that is above TAU. It is least squares with one
regressor, cheap, and with no inverse to go wrong; `least_squares` has all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.foreign.feeds import Arrays
from edgeslim.exporter.walk import Walk

from .held_out import Part, of_part
from .least_squares import Correction
from .readers import find_readers

TAU = 0.5
"""Below it a quarter of the energy at most would be explained, and the merge adds more noise than it mends."""

LARGEST_WIDTH = 4608
"""Inputs of a layer that are compared each with each; twice that, as behind a flattened map, takes two gigabytes."""


def merge_twins(
    dense: ir.Model, masked: ir.Model, channels: ChannelMap, cut: Collection[int], inputs: Sequence[Arrays]
) -> tuple[dict[str, NDArray[np.generic]], tuple[Correction, ...]]:
    """The weights of the layers that read cut channels, with those of twins added.

    dense: where the maps are looked at; masked: whose weights change. Twins are of one group; a layer that is depthwise
    loses what it says with what it reads. Shared layers keep theirs.
    """
    former, living = Walk(dense, of_part(inputs, Part.FIT)), channels.living(cut)
    weights = Walk(masked, []).weights
    changed: dict[str, NDArray[np.generic]] = {}
    corrections = []
    for reader in find_readers(channels):
        kept = living[reader.ids]
        if reader.depthwise or kept.all() or not kept.any():
            continue
        wide = f"{len(kept)} inputs, at most {LARGEST_WIDTH} are compared with each other"
        if skipped := reader.unfit or (wide if len(kept) > LARGEST_WIDTH else ""):
            corrections.append(Correction(layer=reader.layer, skipped=skipped))
            continue
        former.advance(reader.node.outputs[0].name or "")
        (seen,) = former.peek([reader.source])
        gram, width = _gram(seen, reader.axis), len(kept) // reader.groups
        matrix = reader.matrix(weights[reader.layer]).reshape(len(kept), reader.taps, -1)
        found = 0
        for first in range(0, len(kept), width):
            own = slice(first, first + width)
            for gone, twin, multiple in _twins(gram[own, own], kept[own]):
                matrix[first + twin] += multiple * matrix[first + gone]
                found += 1
        if found:
            changed[reader.layer] = reader.weight(matrix, weights[reader.layer])
        else:
            corrections.append(Correction(layer=reader.layer, skipped=f"no twins with a cosine above {TAU}"))
    return changed, tuple(corrections)


def _gram(batches: Sequence[NDArray[np.generic]], axis: int) -> NDArray[np.float64]:
    """<x_f, x_g> of all channels over images and positions: (I, I) float64."""
    total = np.zeros((batches[0].shape[axis],) * 2)
    for batch in batches:
        rows = np.moveaxis(batch, axis, 0).reshape(len(total), -1).astype(np.float32)
        total += rows @ rows.T
    return total


def _twins(gram: NDArray[np.float64], kept: NDArray[np.bool_]) -> list[tuple[int, int, float]]:
    """(gone, twin, multiple) for every channel that leaves and has one."""
    power = np.maximum(np.diag(gram), 1e-30)
    cosine = np.abs(gram) / np.sqrt(np.outer(power, power))
    cosine[:, ~kept] = 0.0
    twins = cosine.argmax(axis=1)
    gone = np.flatnonzero(~kept)
    return [
        (int(f), int(twins[f]), float(gram[f, twins[f]] / power[twins[f]])) for f in gone if cosine[f, twins[f]] > TAU
    ]
