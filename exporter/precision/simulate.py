"""A variant as a function on arrays, computing what its graph says: what its accuracy is measured with.

ONNX Runtime would rather do something else: compute float16 in float32, and replace Q/DQ by integer kernels that round
in other places. The first is undone by `round_values`, the second by an entry of the session. What the CPU's own
integer kernels answer is asked for by `integer_kernels`; where a device uses those, they are the variant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..foreign.feeds import Arrays, open_session, run_session
from ..taps import tapped
from .fp16 import HALF
from .observe import PLAIN_QDQ
from .rounding import round_values

Outputs = Callable[[Arrays], list[NDArray[np.generic]]]
"""All inputs by name -> the outputs, or the values that were asked for, in their order."""


def simulate(model: ir.Model, values: Sequence[str] | None = None, integer_kernels: bool = False) -> Outputs:
    """Open a variant, or a plain float32 graph. values: inner values to give in place of the outputs.

    Raises ExportError where ONNX Runtime refuses the graph, or, when called, where it does not run on the inputs.
    """
    honest = round_values(model) if has_float16(model) else model
    names = list(values) if values is not None else [v.name or "" for v in model.graph.outputs]
    if values is not None:
        data = tapped(honest, list(dict.fromkeys(names)))
    else:
        data = bytes(ir.to_proto(honest).SerializeToString())
    session = open_session(data, "the variant", None if integer_kernels else PLAIN_QDQ)
    return lambda feed: run_session(session, names, feed, "the variant")


def has_float16(model: ir.Model) -> bool:
    """Whether any node of a graph makes float16."""
    return any(v.dtype == HALF for node in model.graph for v in node.outputs) or any(
        v.dtype == HALF for v in (*model.graph.inputs, *model.graph.initializers.values())
    )
