"""What an engine must answer: the bundle's golden vectors that it takes, or new ones where it takes none of them."""

from __future__ import annotations

import numpy as np

from edgeslim.errors import BundleError, DeviceError
from edgeslim.runtime import Bundle, FrameRange, GoldenCase, open_backend


def golden_cases(bundle: Bundle, frames: FrameRange) -> tuple[tuple[GoldenCase, ...], tuple[str, ...]]:
    """The cases inside `frames`, and remarks.

    Where there is none, the frames of the first are repeated and cut to the usual size, and ONNX Runtime computes what
    the fp32 model answers. Raises BundleError for a bundle without golden vectors, DeviceError without ONNX Runtime.
    """
    name = bundle.manifest.inputs[0].name
    cases = bundle.golden_cases()
    fitting = tuple(case for case in cases if tuple(case.inputs[name].shape[:3]) in frames)
    if fitting:
        return fitting, ()
    if not cases:
        raise BundleError(f"{bundle.path} has no golden vectors", "export it again")
    batch = cases[0].inputs[name]
    for axis, size in enumerate(frames.optimum):
        batch = np.take(batch, np.arange(size) % batch.shape[axis], axis=axis)
    try:
        backend = open_backend("onnxruntime", bundle.model)
    except DeviceError as error:
        raise DeviceError(
            f"no golden vector is a batch of {frames}, and without ONNX Runtime no other can be made: {error.message}",
            "build for a range that holds a golden vector, or install onnxruntime",
        ) from error
    with backend:
        outputs = backend.run({name: batch})
        case = GoldenCase(inputs={name: batch}, outputs={s.name: a for s, a in zip(backend.outputs, outputs)})
    return (case,), (f"no golden vector is a batch of {frames}: ONNX Runtime {backend.version} computed another",)
