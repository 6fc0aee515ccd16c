"""What a person can do about an operator that TensorRT lacks: the nearest thing that it has."""

from __future__ import annotations

_REWRITES = {
    "Det": "compute the determinant outside of the net",
    "DeformConv": "torchvision's deform_conv2d needs a plugin: replace it by a plain convolution before training",
    "GridSample": "use bilinear or nearest sampling of 4-D images; other modes and 3-D volumes are not there",
    "LpPool": "write it as Pow, AveragePool, Pow",
    "MaxRoiPool": "use RoiAlign",
    "MaxUnpool": "upsample with Resize, or with a transposed convolution",
    "Multinomial": "draw random numbers outside of the net",
    "NonMaxSuppression": "end the net at boxes and scores, and suppress in the camera program",
    "RandomNormal": "draw random numbers outside of the net, and give them as an input",
    "RandomUniform": "draw random numbers outside of the net, and give them as an input",
    "Resize": "use mode nearest, linear or cubic with constant scales; antialias is not there",
    "RoiAlign": "use avg or max mode with a constant output size",
    "SequenceAt": "write torch.chunk or split with constant sizes, so that the trace has a Split",
    "SplitToSequence": "write torch.chunk or split with constant sizes, so that the trace has a Split",
    "StringNormalizer": "text does not belong into the graph",
    "Unique": "compute it outside of the net",
    "BitShift": "multiply or divide by powers of two",
    "LSTM": "use one direction, forward, without peepholes",
}
_DEFAULT = (
    "leave the operator out of the net, or end the graph before it and compute the rest in the camera program; "
    "`edgeslim bench --backend onnxruntime` runs the bundle without TensorRT"
)


def nearest_rewrite(operator: str) -> str:
    """A hint for one ONNX operator; a general one where nothing nearer is known."""
    return _REWRITES.get(operator, _DEFAULT)
