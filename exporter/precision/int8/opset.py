"""Raise the opset of a graph, and check on an image that it still says the same.

Q/DQ with a scale per channel needs opset 13. The converter of `onnx` knows most steps, and is known to get some
wrong in silence; so its result is run beside the original before anybody relies on it.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes import common

from edgeslim.errors import UnsupportedGraphError, first_line

from ...foreign.feeds import open_session
from ..calibration import Calibration
from ..observe import run

_TOLERANCE = 1e-4
"""Largest difference, relative to the largest output: another opset may mean other kernels."""


def opset_of(model: ir.Model) -> int:
    """The opset of the standard operators. Raises UnsupportedGraphError where the graph states none."""
    version = model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx"))
    if version is None:
        raise UnsupportedGraphError("the graph imports no standard operators", "export it again")
    return version


def raise_opset(model: ir.Model, wanted: int, calibration: Calibration) -> ir.Model:
    """`model` itself if its opset is high enough, else a converted copy that was compared with it.

    Raises UnsupportedGraphError where the converter gives up, or the copy answers otherwise.
    """
    present = opset_of(model)
    if present >= wanted:
        return model
    proto = ir.to_proto(model)
    try:
        converted = onnx.version_converter.convert_version(proto, wanted)
        converted.ir_version = max(converted.ir_version, 8)
        onnx.checker.check_model(converted)
    except Exception as error:  # ConvertError, and whatever an adapter meets
        raise UnsupportedGraphError(
            f"a scale per channel needs opset {wanted}, and this graph of opset {present} cannot be converted: "
            f"{first_line(error)}",
            f"export the net for opset {wanted} or newer",
        ) from error
    feed = calibration.feeds[0]
    before, after = (
        run(open_session(p.SerializeToString(), what), feed, 0)
        for p, what in ((proto, "the graph"), (converted, "the graph with its opset raised"))
    )
    for old, new, output in zip(before, after, model.graph.outputs):
        scale = max(float(np.abs(old).max(initial=0)), 1e-30)
        if (
            old.shape != new.shape
            or not float(np.abs(old.astype(np.float64) - new.astype(np.float64)).max(initial=0)) <= _TOLERANCE * scale
        ):
            raise UnsupportedGraphError(
                f"raised from opset {present} to {wanted} the graph answers otherwise at output {output.name}",
                f"export the net for opset {wanted} or newer",
            )
    raised = ir.from_proto(converted)
    common.ShapeInferencePass(check_type=False, strict_mode=False)(raised)
    return raised
