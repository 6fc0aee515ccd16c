"""Files newer than the runtime that has to prove something about them.

The onnx package writes an opset, and a version of the file format, that ONNX Runtime takes up some releases later.
Such a file is brought down to the newest that runs; the operators of common nets have not changed in between, and where
one has, onnx's converter knows its former form or refuses.
"""

from __future__ import annotations

import functools
from pathlib import Path

import onnx
import onnxruntime
from onnx import TensorProto, helper

from edgeslim.errors import UnsupportedGraphError, first_line

_OLDEST = (18, 8)


def runnable(proto: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    """The model in an opset and format version that ONNX Runtime takes; the same object where it has one.

    opset: that of the file. Raises UnsupportedGraphError where the newer operators have no older form.
    """
    newest_opset, newest_format = newest()
    if opset > newest_opset:
        try:
            proto = onnx.version_converter.convert_version(proto, newest_opset)
        except Exception as error:  # ConvertError, and whatever an adapter meets
            raise UnsupportedGraphError(
                f"{path} is written for opset {opset}; ONNX Runtime {onnxruntime.__version__} runs up to "
                f"{newest_opset}, and it cannot be converted: {first_line(error)}",
                "update the onnxruntime package, or export the model for an older opset",
            ) from error
    proto.ir_version = min(proto.ir_version, newest_format)
    return proto


@functools.cache
def newest() -> tuple[int, int]:
    """The newest opset, and the newest version of the file format, that the installed ONNX Runtime loads."""
    known = onnx.defs.onnx_opset_version(), onnx.IR_VERSION
    version = next((v for v in range(known[1], _OLDEST[1], -1) if _loads(_OLDEST[0], v)), _OLDEST[1])
    return next((o for o in range(known[0], _OLDEST[0], -1) if _loads(o, version)), _OLDEST[0]), version


def _loads(opset: int, version: int) -> bool:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime raises its own exception types, all of them "too new"
        return False
    return True
