"""Batch-norm statistics as the pruned net sees them.

A batch norm was trained on what reached it from all channels. After a cut its inputs have another mean and variance;
both are measured anew, first norm to last, each on what reaches it through the norms before it:

    mean[c] = E x[c],    var[c] = E (x[c] - mean[c])^2       over all images and positions
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
from .least_squares import Correction, affected_values


def reestimate(
    dense: ir.Model, masked: ir.Model, channels: ChannelMap, cut: Collection[int], inputs: Sequence[Arrays]
) -> tuple[dict[str, NDArray[np.generic]], tuple[Correction, ...]]:
    """The new statistics of every batch norm that hears something else than before, by initializer.

    dense is not looked at. Statistics of cut channels stay, and so do those that several norms share and those that are
    constants of the trace.
    """
    walk = Walk(masked, of_part(inputs, Part.FIT))
    living = channels.living(cut)
    other = affected_values(channels, living)
    changed: dict[str, NDArray[np.generic]] = {}
    for node in channels.model.graph:
        source, mean, var = (node.inputs[i] for i in (0, 3, 4)) if node.op_type == "BatchNormalization" else (None,) * 3
        if source is None or mean is None or var is None or source.name not in other:
            continue
        names = [mean.name or "", var.name or ""]
        if not channels.parameters.issuperset(names) or len(mean.uses()) > 1 or len(var.uses()) > 1:
            continue
        walk.advance(node.outputs[0].name or "")
        (seen,) = walk.peek([source.name or ""])
        axes = channels.value_ids.get(source.name or "", ())
        ids = axes[1] if len(axes) > 1 else None
        kept = np.ones(seen[0].shape[1], np.bool_) if ids is None else living[ids]
        for name, values in zip(names, moments(seen)):
            array = walk.weights[name].copy()
            array[kept] = values[kept]
            changed[name] = walk.weights[name] = array
    return changed, ()


def moments(batches: Sequence[NDArray[np.generic]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of every channel: (N, C, ...) each -> (C,) float64."""
    rest = (0, *range(2, batches[0].ndim))
    count = sum(b.size // b.shape[1] for b in batches)
    mean = np.sum([b.sum(axis=rest, dtype=np.float64) for b in batches], axis=0) / count
    around = mean.reshape(1, -1, *[1] * (batches[0].ndim - 2))
    squares = [np.square(b - around, dtype=np.float64).sum(axis=rest) for b in batches]
    return np.asarray(mean, np.float64), np.asarray(np.sum(squares, axis=0) / count, np.float64)
