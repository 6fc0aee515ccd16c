"""Make every zero of a kernel the same zero.

Folding a batch norm multiplies a pruned weight by its gamma, and 0 times a negative number is -0.0, whose bits are not
all zero. A sum of products does not change by it (at most the sign of a result that is zero), and all zeros can be
left out of the stored file.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..channels.rules.contraction import WEIGHTED


def plain_zeros(model: ir.Model) -> ir.Model:
    """Return `model` with +0.0 wherever a float kernel of a convolution or matrix product has -0.0."""
    plain = model.clone()
    for node in plain.graph:
        weight = node.inputs[1] if node.op_type in WEIGHTED and len(node.inputs) > 1 else None
        if weight is None or not weight.is_initializer() or weight.const_value is None:
            continue
        array = weight.const_value.numpy()
        if array.dtype.kind == "f" and np.any(np.signbit(array) & (array == 0)):
            weight.const_value = ir.tensor(np.where(array == 0, array.dtype.type(0), array), name=weight.name)
    return plain
