"""A graph and a module computed in float64, for nets whose float32 answer is rounding noise.

A deep net with random weights can blow the last bit of float32 up to the size of its answer: two right graphs then
differ, and a wrong one hides among them. ONNX Runtime has no float64 convolutions, ONNX's reference evaluator has.
"""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import nn

from edgeslim.exporter.certificate import Runner
from edgeslim.exporter.trace import runner_from_module


class Conv(OpRun):  # type: ignore[misc]  # onnx.reference is untyped
    """torch's convolution: the evaluator's own writes a dilated kernel out with its zeros, which fills the memory."""

    def _run(
        self,
        x: NDArray[np.float64],
        w: NDArray[np.float64],
        b: NDArray[np.float64] | None = None,
        *,
        auto_pad: str,
        dilations: list[int] | None,
        group: int,
        kernel_shape: list[int] | None,
        pads: list[int] | None,
        strides: list[int] | None,
    ) -> tuple[NDArray[np.float64]]:
        assert auto_pad == "NOTSET" and kernel_shape in (None, list(w.shape[2:]))
        ones = [1] * (w.ndim - 2)
        begin, end = np.reshape(pads or [0, 0] * len(ones), (2, -1))
        padded = np.pad(x, [(0, 0), (0, 0), *zip(begin, end, strict=True)])
        bias = None if b is None else torch.tensor(b)
        convolved = torch.convolution(
            torch.from_numpy(padded), torch.tensor(w), bias, strides or ones, [0] * len(ones),
            dilations or ones, False, [0] * len(ones), group,
        )  # fmt: skip
        return (convolved.numpy(),)


def float64_runner_from_graph(model: ir.Model) -> Runner:
    """The graph as a function on float64 images, run by ONNX's reference evaluator."""
    proto = ir.to_proto(model)
    graph = proto.graph
    for tensor in graph.initializer:
        _widen(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _widen(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    evaluator = ReferenceEvaluator(proto, new_ops=[Conv])
    feed = graph.input[0].name
    return lambda images: [np.asarray(a) for a in evaluator.run(None, {feed: images.astype(np.float64)})]


def float64_runner_from_module(module: nn.Module) -> Runner:
    """A float64 copy of the module as a function on images."""
    module = copy.deepcopy(module).double()
    for part in module.modules():
        if isinstance(getattr(part, "eps", None), float):  # an attribute of the graph, and those are float32
            part.eps = float(np.float32(part.eps))
    run = runner_from_module(module)
    return lambda images: run(images.astype(np.float64))


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        wide = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
