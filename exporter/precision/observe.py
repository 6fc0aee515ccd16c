"""Look at inner values on calibration inputs, with bounded memory.

A net is run image by image, and each value is seen once per image and forgotten. Where the values of one image are too
large to be held together (a U-Net at full size), they are taken in several runs. Calibrators that keep every
value of every image until the end, as onnxruntime.quantization's do when they are given all images at once, need
memory that grows with the number of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from edgeslim.errors import DataError, first_line

from ..foreign.feeds import Arrays, open_session
from ..names import free_prefix
from ..taps import tapped
from .calibration import Calibration

LIMIT_BYTES = 256 << 20
"""Of the values that are held at a time."""

PLAIN_QDQ: Mapping[str, str] = {"session.disable_quant_qdq": "1"}
"""Quantise, dequantise and compute in between as the graph says: no integer kernels, which round in other places."""


def observe(
    model: ir.Model, names: Sequence[str], calibration: Calibration, limit: int = LIMIT_BYTES
) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield (name, array) for every one of these values on every image, in no promised order.

    Raises DataError where the net does not run on an image, or a value is NaN or infinite.
    """
    largest = largest_feed(calibration)
    for part in _parts(names, count_elements(model, names, largest), limit):
        session = open_session(tapped(model, part), "the graph with its inner values as outputs", PLAIN_QDQ)
        for number, feed in enumerate(calibration.feeds):
            for name, array in zip(part, run(session, feed, number)):
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise DataError(
                        f"value {name} is NaN or infinite on calibration image {number}",
                        "the net itself computes this in float32: look at the image, then at the weights",
                    )
                yield name, array


def largest_feed(calibration: Calibration) -> Arrays:
    """The set of inputs with the most numbers."""
    return max(calibration.feeds, key=lambda feed: sum(a.size for a in feed.values()))


def run(session: onnxruntime.InferenceSession, feed: Arrays, number: int) -> list[NDArray[np.generic]]:
    """All outputs of a session on set `number`. Raises DataError where it fails."""
    try:
        return [np.asarray(a) for a in session.run(None, dict(feed))]
    except Exception as error:  # onnxruntime raises its own exception types
        shapes = {name: array.shape for name, array in feed.items()}
        raise DataError(
            f"the net does not run on calibration image {number}, {shapes}: {first_line(error)}",
            "give images of a size that the net takes",
        ) from error


def count_elements(model: ir.Model, names: Sequence[str], feed: Arrays) -> dict[str, int]:
    """Elements of each value on one set of inputs, counted inside the graph."""
    if not names:  # a session has to have an output
        return {}
    proto, prefix = ir.to_proto(model), free_prefix(model.graph, "elements")
    del proto.graph.output[:]
    for number, name in enumerate(names):
        proto.graph.node.append(onnx.helper.make_node("Size", [name], [f"{prefix}/{number}"]))
        size = onnx.helper.make_tensor_value_info(f"{prefix}/{number}", onnx.TensorProto.INT64, [])
        proto.graph.output.append(size)
    session = open_session(proto.SerializeToString(), "the graph with the sizes of its values as outputs", PLAIN_QDQ)
    return {name: int(size) for name, size in zip(names, run(session, feed, 0))}


def _parts(names: Sequence[str], sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """Neighbours that fit into `limit` bytes of float32 together; a value that does not fit goes alone."""
    part: list[str] = []
    held = 0
    for name in dict.fromkeys(names):
        own = 4 * sizes[name]
        if part and held + own > limit:
            yield part
            part, held = [], 0
        part.append(name)
        held += own
    if part:
        yield part
