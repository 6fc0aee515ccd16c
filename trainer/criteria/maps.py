"""Feature maps with their space, for criteria that compare neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeslim.errors import DataError, first_line
from edgeslim.exporter.channels.labels import Ids
from edgeslim.exporter.feature_maps import find_feature_maps
from edgeslim.exporter.taps import tapped

from .units import Scored


def spatial_maps(net: Scored, images: NDArray[np.float32]) -> Iterator[tuple[int, Ids, NDArray[np.float32]]]:
    """Yield, image by image, (number of the map, root labels (C,), feature map (C, ...) float32).

    images: (N, C, H, W) float32, normalised as the net expects. Raises DataError if it does not take them.
    """
    maps = find_feature_maps(net.channels)
    if not maps:
        return
    names = [m.value for m in maps]
    session = onnxruntime.InferenceSession(tapped(net.graph, list(dict.fromkeys(names))))
    feed = session.get_inputs()[0].name
    for image in images:
        try:
            arrays = session.run(names, {feed: image[None]})
        except Exception as error:  # onnxruntime raises its own exception types
            raise DataError(
                f"the net does not run on a calibration image of shape {image.shape}: {first_line(error)}",
                "give images of a size that the net takes",
            ) from error
        for index, (found, array) in enumerate(zip(maps, arrays)):
            yield index, found.ids, np.moveaxis(np.asarray(array), found.axis, 0)
