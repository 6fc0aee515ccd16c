"""Look at what the channels carry: feature maps of the traced graph, run on calibration images.

A weighted layer's feature map is its output after batch norm and non-linearity: from the layer on, the chain of
single readers that treat each channel by itself, and of x * sigmoid(x), which a trace writes as two readers. Which
channel of it belongs to which unit is known from the labels, so no hook into a module is needed, and an ONNX file
serves as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from edgeslim.errors import DataError, first_line

from .channels import ChannelMap
from .channels.labels import Ids
from .channels.rules.contraction import WEIGHTED
from .taps import tapped

_PER_CHANNEL = frozenset(
    {
        "BatchNormalization", "Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu",
        "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMap:
    """The output of one weighted layer after its non-linearity.

    depth: 0-based position among the weighted layers; depths: their number. ids: (C,) root labels along `axis`.
    """

    value: str
    axis: int
    depth: int
    depths: int
    ids: Ids


def find_feature_maps(channels: ChannelMap) -> tuple[FeatureMap, ...]:
    """The feature maps of all weighted layers that have units, first to last."""
    layers = [n for n in channels.model.graph if n.op_type in WEIGHTED]
    found = []
    for depth, node in enumerate(layers):
        value = _after_activation(node.outputs[0])
        axes = channels.value_ids.get(value.name or "", ())
        axis = 1 if node.op_type.startswith("Conv") else len(axes) - 1
        ids = axes[axis] if 0 <= axis < len(axes) else None
        if ids is not None:
            found.append(FeatureMap(value=value.name or "", axis=axis, depth=depth, depths=len(layers), ids=ids))
    return tuple(found)


def run_feature_maps(
    model: ir.Model, maps: Sequence[FeatureMap], images: NDArray[np.float32]
) -> Iterator[list[NDArray[np.float32]]]:
    """Yield, image by image, the maps as (C, 1, space...) float32: a batch of one, the channels moved to the front.

    images: (N, C, H, W) float32, normalised as the net expects. Raises DataError if it does not take them.
    A graph with a batch size of its own gets as many images at a time, the last ones again where they do not suffice.
    """
    if not maps:
        return
    shape = model.graph.inputs[0].shape
    size = shape[0] if shape is not None and len(shape) and isinstance(shape[0], int) else 1
    names = [m.value for m in maps]
    session = onnxruntime.InferenceSession(tapped(model, list(dict.fromkeys(names))))
    feed = session.get_inputs()[0].name
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        try:
            arrays = session.run(names, {feed: np.resize(batch, (size, *batch.shape[1:]))})
        except Exception as error:  # onnxruntime raises its own exception types
            raise DataError(
                f"the net does not run on a calibration image of shape {batch.shape[1:]}: {first_line(error)}",
                "give images of a size that the net takes",
            ) from error
        for i in range(len(batch)):
            yield [np.moveaxis(_of_image(np.asarray(a), i, size), m.axis, 0) for m, a in zip(maps, arrays)]


def _of_image(array: NDArray[np.float32], index: int, size: int) -> NDArray[np.float32]:
    """The part of image `index` of `size`; its positions may have been merged into the first axis."""
    rows, rest = divmod(len(array), size)
    return array if rest else array[index * rows : (index + 1) * rows]


def _after_activation(value: ir.Value) -> ir.Value:
    while (following := _following(value)) is not None:
        value = following
    return value


def _following(value: ir.Value) -> ir.Value | None:
    """What becomes of `value`, channel by channel; None where it is read otherwise, or in several places."""
    readers = [] if value.is_graph_output() else [(use.node, use.idx) for use in value.uses()]
    if len(readers) == 1:
        ((node, index),) = readers
        alone = (node.op_type in _PER_CHANNEL and index == 0) or (node.op_type == "Mul" and _by_one_number(node))
        return node.outputs[0] if alone else None
    for gate, index in readers if len(readers) == 2 else ():
        ((product, _),) = (reader for reader in readers if reader != (gate, index))
        own = gate.outputs[0]
        if gate.op_type in ("Sigmoid", "HardSigmoid") and product.op_type == "Mul" and own in product.inputs:
            return None if own.is_graph_output() or len(own.uses()) > 1 else product.outputs[0]
    return None


def _by_one_number(node: ir.Node) -> bool:
    return any(v is not None and v.const_value is not None and v.const_value.size == 1 for v in node.inputs)
