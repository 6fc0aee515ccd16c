"""Shorten the graph without changing what it computes: fuse batch norms, drop dead nodes.

onnxsim does it; where it gives up (it can raise on graphs without shapes), onnxslim takes over; where both do, the
graph stays as it is. Which one it was is reported, never silent.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from edgeslim.errors import first_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Simplified:
    """The model and the tool that made it ("onnxsim", "onnxslim", or "none" with the reasons)."""

    model: ir.Model
    tool: str
    problems: tuple[str, ...] = ()


def simplify(model: ir.Model) -> Simplified:
    """Return a simplified copy of `model` with its outputs in the same order."""
    problems = []
    for name, tool in (("onnxsim", _onnxsim), ("onnxslim", _onnxslim)):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                simpler = tool(ir.to_proto(model))
            onnx.checker.check_model(simpler)
        except Exception as error:  # third-party tools fail in many ways; every one of them only means "try the next"
            problems.append(f"{name}: {first_line(error)}")
            continue
        return Simplified(model=ir.from_proto(simpler), tool=name, problems=tuple(problems))
    return Simplified(model=model.clone(), tool="none", problems=tuple(problems))


def _onnxsim(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    result: tuple[onnx.ModelProto, bool] = onnxsim.simplify(proto)
    simpler, equal = result
    if not equal:
        raise ValueError("its own check found a difference")
    return simpler


def _onnxslim(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    slim: Callable[[onnx.ModelProto], onnx.ModelProto] = onnxslim.slim
    return slim(proto)
