"""The kernels that produce units, as criteria on weights see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from edgeslim.exporter.channels.labels import Ids

from .units import Scored, Scores


def producers(net: Scored, smallest_rank: int = 2) -> Iterator[tuple[str, int, Ids, Scores]]:
    """(initializer, axis, root labels (C,), weights (C, ...) float64 with that axis first), in the order of the graph.

    smallest_rank: 1 for biases and batch norms too.
    """
    weights = net.graph.graph.initializers
    for name, axes in net.channels.initializer_axes.items():
        value = weights[name].const_value
        if value is None or value.shape.rank() < smallest_rank:
            continue
        for index, axis in enumerate(axes):
            if axis is not None and (name, index) in net.channels.masked:
                array = np.moveaxis(value.numpy().astype(np.float64), index, 0)
                yield name, index, net.channels.labels.find(axis.ids), array


def group_count(net: Scored, name: str, axis: int) -> int:
    """In how many groups of equal size the filters on this axis of a kernel read different channels.

    1 for all but grouped convolutions; an output axis of a grouped transposed one has all groups' filters side by side.
    """
    readers = [use.node for use in net.graph.graph.initializers[name].uses()]
    grouped = [n for n in readers if axis == 0 and n.op_type in ("Conv", "ConvTranspose") and "group" in n.attributes]
    return max((node.attributes["group"].as_int() for node in grouped), default=1)


def group_by_group(score: Callable[[Scores], Scores], filters: Scores, groups: int) -> Scores:
    """`score` of each group by itself: filters (C, K), of which C / groups follow each other, -> (C,)."""
    return np.concatenate([score(part) for part in np.split(filters, groups)])


def flat(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C, ...) -> (C, rest)."""
    return array.reshape(len(array), -1)


def cosines(filters: NDArray[np.float64]) -> NDArray[np.float64]:
    """|cos| of the angle between any two filters, 0 to one that is zero. (C, K) -> (C, C)."""
    sizes = np.sqrt(np.square(filters).sum(1, keepdims=True))
    unit = filters / np.maximum(sizes, 1e-300)
    return np.asarray(np.abs(unit @ unit.T))
