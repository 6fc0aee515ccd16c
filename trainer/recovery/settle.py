"""Batch norms told what they hear now, in a form that answers as before.

Least squares moves weights in front of a batch norm, and counts on the mean and deviation that the norm remembers. In
training a norm goes by those of the batch instead, so the first step of a fine-tuning would undo much of the
correction. Here the norm remembers what it hears, and scale and shift make up for it:

    mean' = E x,  sd' = sqrt(Var x + eps)     scale' = scale * sd' / sd,    shift' = shift + scale * (mean' - mean) / sd

    scale' (x - mean') / sd' + shift'  =  scale (x - mean) / sd + shift      for every x
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.foreign.feeds import Arrays
from edgeslim.exporter.walk import Walk

from .batch_norm import moments
from .held_out import Part, of_part
from .least_squares import affected_values


def settle(
    masked: ir.Model, channels: ChannelMap, cut: Collection[int], inputs: Sequence[Arrays]
) -> dict[str, NDArray[np.generic]]:
    """Scale, shift, mean and variance of every batch norm that hears something else than before, by initializer.

    masked: the corrected graph. What belongs to cut channels, and norms that share a tensor with others, stay.
    """
    walk = Walk(masked, of_part(inputs, Part.FIT))
    living = channels.living(cut)
    other = affected_values(channels, living)
    changed: dict[str, NDArray[np.generic]] = {}
    for node in channels.model.graph:
        if node.op_type != "BatchNormalization":
            continue
        source, *tensors = node.inputs[:5]
        names = [v.name or "" for v in tensors if v is not None]
        if source is None or source.name not in other or not set(names) <= walk.weights.keys():
            continue
        if len(names) < 4 or any(v is not None and len(v.uses()) > 1 for v in tensors):
            continue
        walk.advance(node.outputs[0].name or "")
        (seen,) = walk.peek([source.name])
        epsilon = node.attributes.get_float("epsilon", 1e-5)
        scale, shift, mean, var = (walk.weights[name].astype(np.float64) for name in names)
        new_mean, new_var = moments(seen)
        before, after = np.sqrt(var + epsilon), np.sqrt(new_var + epsilon)
        axes = channels.value_ids.get(source.name, ())
        ids = axes[1] if len(axes) > 1 else None
        kept = np.ones(len(scale), np.bool_) if ids is None else living[ids]
        new = (scale * after / before, shift + scale * (new_mean - mean) / before, new_mean, new_var)
        for name, values in zip(names, new):
            array = walk.weights[name].copy()
            array[kept] = values[kept]
            changed[name] = array
    return changed
