"""Which operators write over what they read, and which write nothing at all.

The tables say what ONNX Runtime's kernels for CPUs declare, and were found by asking it: in a graph of three nodes,
with optimisation off, the block of activations holds two values where the node in the middle has a buffer of its own,
and one where it has not (tests/unit/test_memory_reuse.py asks again). Beliefs would have been wrong: Add, Mul, Max,
Abs, Exp and Pow, which could work in place, do not.

A value is written over only by its last reader, and only where the graph states the same shape for both, by number or
by name: this is decided before anything runs, so a size that is open in the file costs a buffer. It is never written
over if the result leaves the graph: what leaves has a buffer that the caller keeps.
"""

from __future__ import annotations

import onnx_ir as ir

IN_PLACE = frozenset(
    {
        "Cast",
        "Celu",
        "Clip",
        "Elu",
        "HardSigmoid",
        "LeakyRelu",
        "LogSoftmax",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softmax",
        "Softplus",
        "Softsign",
        "Tanh",
        "ThresholdedRelu",
    }
)
"""They may write their result over their first input."""

ALIASES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Their result is their first input under another name, whoever else reads it."""

_STANDARD = ("", "ai.onnx")
_FUSED_SUM = 3
"""Where a fused convolution reads the tensor that it adds to."""


def renamed_input(node: ir.Node) -> ir.Value | None:
    """The input that this node's first output is another name of."""
    return node.inputs[0] if node.op_type in ALIASES and node.domain in _STANDARD and node.inputs else None


def overwritten_input(node: ir.Node) -> ir.Value | None:
    """The input that this node may write its first output over.

    Conv + Add (+ activation) is one kernel once ONNX Runtime has fused it, FusedConv or the blocked Conv: it adds to
    the sum's other operand in place, and the convolution's own result is never stored.
    """
    if node.domain in _STANDARD:
        return node.inputs[0] if node.op_type in IN_PLACE and node.inputs else None
    fused = node.op_type in ("Conv", "FusedConv") and len(node.inputs) > _FUSED_SUM
    return node.inputs[_FUSED_SUM] if fused else None
