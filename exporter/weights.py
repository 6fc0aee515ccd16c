"""Put trained weights into a traced graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.errors import ExportError


def with_weights(model: ir.Model, arrays: Mapping[str, NDArray[np.generic]]) -> ir.Model:
    """Return a copy of `model` whose initializers of these names hold these arrays (same shapes, own dtypes).

    Names that the graph does not have are ignored (a trace drops what the forward does not read).
    Raises ExportError on a shape mismatch.
    """
    model = model.clone()
    for name, value in model.graph.initializers.items():
        if name not in arrays:
            continue
        array = np.array(arrays[name], order="C")  # a copy: the caller goes on training
        if value.shape is not None and tuple(value.shape) != array.shape:
            raise ExportError(
                f"weight {name} has shape {array.shape}, the graph expects {tuple(value.shape)}",
                "load the checkpoint that belongs to this model",
            )
        value.const_value = ir.tensor(array, name=name)
    return model
