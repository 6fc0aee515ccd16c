"""Look at what the channels carry: feature maps of the traced graph, run on calibration images.

A weighted layer's feature map is its output after batch norm and non-linearity: from the layer on, the chain of
single readers that treat each channel by itself. Which channel of it belongs to which unit is known from the labels,
so no hook into a module is needed, and an ONNX file serves as well.
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
    layers = [n for n in channels.model.graph if n.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")]
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
    """
    if not maps:
        return
    names = [m.value for m in maps]
    session = onnxruntime.InferenceSession(tapped(model, list(dict.fromkeys(names))))
    feed = session.get_inputs()[0].name
    for image in images:
        try:
            arrays = session.run(names, {feed: image[None]})
        except Exception as error:  # onnxruntime raises its own exception types
            raise DataError(
                f"the net does not run on a calibration image of shape {image.shape}: {first_line(error)}",
                "give images of a size that the net takes",
            ) from error
        yield [np.moveaxis(np.asarray(a), m.axis, 0) for m, a in zip(maps, arrays)]


def _after_activation(value: ir.Value) -> ir.Value:
    while True:
        users = value.uses()
        if len(users) != 1 or value.is_graph_output():
            return value
        node, index = next(iter(users))
        if node.op_type not in _PER_CHANNEL or index != 0:
            return value
        value = node.outputs[0]
