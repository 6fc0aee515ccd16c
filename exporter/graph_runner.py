"""A graph as a function on arrays, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime

from edgeslim.errors import ExportError

from .certificate import Runner


def runner_from_graph(model: ir.Model, quiet: bool = False) -> Runner:
    """Wrap a graph as a function on arrays, run by ONNX Runtime. Raises ExportError if it refuses the graph.

    quiet: a failure is expected, and nothing is written to stderr about it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4 if quiet else 3
    try:
        session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    except Exception as error:  # onnxruntime raises its own exception types, all of them "cannot load"
        raise ExportError(f"ONNX Runtime refuses the exported graph: {error}", "please report the net") from error
    feed = session.get_inputs()[0].name
    return lambda images: [np.asarray(a) for a in session.run(None, {feed: images})]
