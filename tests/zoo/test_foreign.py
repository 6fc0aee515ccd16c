"""ONNX files from elsewhere: old operator sets, weights as Constant nodes, names of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgeslim.exporter.channels import ChannelMap, analyze
from edgeslim.exporter.channels.coverage import coverage
from edgeslim.exporter.foreign import read_onnx
from edgeslim.exporter.passes.remove_channels import remove_channels

from .check import half_of_every_family, largest_error, unexplained

FILES = (
    "cifar10_squeezenet/squeezenet_cifar10.onnx",
    "face_ultralight/version-RFB-320.onnx",
    "onnx_light/light_densenet121.onnx",
    "onnx_light/light_resnet50.onnx",
    "onnx_light/light_squeezenet.onnx",
    "onnx_light/light_vgg19.onnx",
)
TOLERANCE = 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_analysed_without_an_exception(name: str, shared_data: Path) -> None:
    path = shared_data / "weights" / name
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    model = read_onnx(path)
    channels = analyze(model)
    assert channels.layers and not unexplained(coverage(channels))
    cut = half_of_every_family(channels)
    assert cut
    masked = _masked(model, channels, cut)
    assert largest_error(_run(remove_channels(masked, channels, cut)), _run(masked)) < TOLERANCE


def _masked(model: ir.Model, channels: ChannelMap, cut: list[int]) -> ir.Model:
    """A copy of the graph in which the cut units are silent."""
    copy = model.clone()
    living = channels.living(cut)
    for name, axis in channels.masked:
        value, carried = copy.graph.initializers[name], channels.initializer_axes[name][axis]
        assert value.const_value is not None and carried is not None
        array = np.moveaxis(value.const_value.numpy().copy(), axis, 0)
        array[~living[carried.ids]] = 0
        value.const_value = ir.tensor(np.ascontiguousarray(np.moveaxis(array, 0, axis)), name=name)
    return copy


def _run(model: ir.Model) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (image,) = [v for v in session.get_inputs() if v.name not in model.graph.initializers]
    shape = [n if isinstance(n, int) else 1 for n in image.shape]
    outputs = session.run(None, {image.name: np.random.default_rng(0).standard_normal(shape, np.float32)})
    return np.concatenate([np.ravel(o) for o in outputs])
