"""Fold what only carries shapes, and leave every parameter under its own name.

A trace holds Shape / CastLike / Expand chains that build constants (a zero bias for a convolution without one), and
SplitToSequence + SequenceAt for `chunk`. The folder of onnxscript computes them; it is kept away from every node
that reads a parameter, because a folded parameter would lose the name that ties it to the module.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

_LARGEST_FOLDED = 1 << 24
"""Elements; above it a folded constant would outweigh the nodes it replaces."""
_GRAPHS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


def fold_constants(model: ir.Model, parameters: Collection[str] | None = None, *, untrusted: bool = False) -> ir.Model:
    """Return a copy of `model` with constant sub-graphs folded, constants as initializers, shapes inferred.

    parameters: initializers that keep their names, all of them where None. untrusted: the file may be anybody's. What
    would be larger than the limit is then not even computed, and a constant that says no more than its shape is folded.
    """
    model = model.clone()
    kept = set(model.graph.initializers) if parameters is None else set(parameters)

    def may_fold(node: ir.Node) -> bool | None:
        if node.op_type == "Shape":  # reads the shape of a parameter, not its values
            return None
        if any(v is not None and v.name in kept for v in node.inputs):
            return False
        if not untrusted:
            return None
        if not all(map(_is_small, node.outputs)):
            return False
        return True if node.op_type == "ConstantOfShape" else None  # the folder leaves those, lest the file grow

    optimizer.fold_constants(
        model,
        onnx_shape_inference=False,
        input_size_limit=_LARGEST_FOLDED,
        output_size_limit=_LARGEST_FOLDED,
        should_fold=may_fold,
    )
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if not any(a.type in _GRAPHS for n in model.graph for a in n.attributes.values()):
        common.IdentityEliminationPass()(model)  # a sub-graph may not return what it has only captured
    common.RemoveUnusedNodesPass()(model)
    # Values of shapes are followed by allocating what they promise.
    common.ShapeInferencePass(data_prop=not untrusted)(model)
    return model


def _is_small(value: ir.Value) -> bool:
    """Whether a node's output is known to be below the limit before anybody computes it."""
    if value.shape is None:
        return False
    return math.prod(d if isinstance(d, int) else _LARGEST_FOLDED + 1 for d in value.shape) <= _LARGEST_FOLDED
