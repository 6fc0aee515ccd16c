"""What `Session.run` adds to ONNX Runtime's own run on the same input; the promise is under 50 microseconds."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import quantiles

import numpy as np
import onnx
import onnxruntime

from edgeslim.bench.clock import time_ns, undisturbed
from edgeslim.exporter.bundle import write_bundle
from edgeslim.runtime import Certificate, ImageSpec, Manifest, Sizes, Stage, TensorSpec, load

ROUNDS = 3000
SIZE = (16, 24)


def main() -> None:
    """Print one row of a Markdown table: name, median with the middle half, what it was measured beside."""
    frame = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    model = _model()
    with tempfile.TemporaryDirectory() as folder, load(_bundle(Path(folder) / "tiny.bundle", model)) as session:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        engine = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        batch = frame[np.newaxis]
        own = lambda: engine.run(None, {"frame": batch})  # noqa: E731 - both sides are timed through one call
        ours = lambda: session.run(frame)  # noqa: E731
        engine_ns, added_ns = [], []
        with undisturbed():
            for number in range(ROUNDS):
                if number % 2 == 0:
                    a, b = time_ns(own), time_ns(ours)
                else:
                    b, a = time_ns(ours), time_ns(own)
                engine_ns.append(a)
                added_ns.append(b - a)
    low, median, high = (value / 1000 for value in quantiles(added_ns, n=4))
    beside = quantiles(engine_ns, n=2)[0] / 1000
    print(f"| Session.run adds | {median:.1f} us ({low:.1f} to {high:.1f}) | to {beside:.1f} us, n = {ROUNDS} |")


def _model() -> bytes:
    """uint8 frame (N, H, W, 3) -> its mean colour (N, 3): next to nothing, so that what is added shows."""
    cast = onnx.helper.make_node("Cast", ["frame"], ["pixels"], to=onnx.TensorProto.FLOAT)
    mean = onnx.helper.make_node("ReduceMean", ["pixels", "axes"], ["colour"], keepdims=0)
    graph = onnx.helper.make_graph(
        [cast, mean],
        "colour",
        [onnx.helper.make_tensor_value_info("frame", onnx.TensorProto.UINT8, ["N", "H", "W", 3])],
        [onnx.helper.make_tensor_value_info("colour", onnx.TensorProto.FLOAT, ["N", 3])],
        [onnx.numpy_helper.from_array(np.array([1, 2], np.int64), "axes")],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def _bundle(path: Path, model: bytes) -> Path:
    stage = Stage(
        name="none", reference="none", inputs="none", max_abs=0.0, max_rel=0.0, atol=0.0, rtol=0.0, passed=True
    )
    manifest = Manifest(
        name="colour",
        inputs=(TensorSpec(name="frame", dtype="uint8", shape=("N", "H", "W", 3), layout="NHWC"),),
        outputs=(TensorSpec(name="colour", dtype="float32", shape=("N", 3), layout="NC"),),
        image=ImageSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        bench_size=SIZE,
        sizes=Sizes(parameters=0),
        certificate=Certificate(stages=(stage,)),
    )
    return write_bundle(path, model=model, manifest=manifest)


if __name__ == "__main__":
    main()
