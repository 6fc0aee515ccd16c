"""The real builder takes what edgeslim makes of real nets: every precision, for every GPU it knows.

The nets are small and untrained; engines are built, not run: there need be no GPU here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from edgeslim.errors import EngineError
from edgeslim.exporter.engine import BuildOptions, Built, build_engine, parse_frames
from edgeslim.exporter.engine.diagnose import graph_with_layers
from edgeslim.progress import Silent
from edgeslim.runtime import read_bundle
from edgeslim.runtime.engines.here import Here
from edgeslim.trainer.models.cifar_resnet import CifarResNet
from edgeslim.trainer.models.mobilenetv3 import MobileNetV3LRASPP
from edgeslim.trainer.models.unet import UNet

from .typed_nets import EVERY_GPU, PRECISIONS, build_graph, write_bundle

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed: pip install 'edgeslim[rtx]'")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nets")]  # one process: the bundles are made once

NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "unet": (lambda: UNet(width=16, depth=2), (1, 3, 64, 64)),
    "mobilenetv3": (lambda: MobileNetV3LRASPP(classes=11), (1, 3, 64, 96)),
    "resnet": (lambda: CifarResNet(blocks=3), (1, 3, 32, 32)),
}
NOT_FOR_TURING = {("resnet", "fp32"), ("resnet", "int8")}
"""They end in a product of float32 matrices, for which TensorRT for RTX 1.7 has no kernels on SM 75."""


Bundles = Callable[[str], Path]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """The bundle of a net with every variant; made once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = write_bundle(tmp_path_factory.mktemp(name), *NETS[name])
        return made[name]

    return get


def build(bundle: Path, **options: object) -> Built:
    chosen = BuildOptions(backend="tensorrt-rtx", **options)  # type: ignore[arg-type]
    return build_engine(bundle, chosen, progress=Silent(), here=Here(problem="no GPU is asked for"))


def test_the_matrix_is_whole() -> None:
    assert PRECISIONS == ("fp32", "fp16", "int8", "int8-half") and len(EVERY_GPU) == 6


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETS)
def test_one_engine_for_every_gpu(name: str, precision: str, bundles: Bundles) -> None:
    targets = EVERY_GPU
    if (name, precision) in NOT_FOR_TURING:
        with pytest.raises(EngineError, match=r"Turing \(SM75\): FP32 GEMM is not supported") as raised:
            build(bundles(name), precision=precision, targets=targets)
        assert "75" in raised.value.hint
        targets = EVERY_GPU[1:]
    built = build(bundles(name), precision=precision, targets=targets)
    record = built.stored.record
    assert built.layers is not None and built.layers > 20 and record.engine.bytes > 10_000
    assert record.spec.targets == targets and record.notes == ()
    graph = read_bundle(bundles(name)).graph(precision)
    assert record.spec.onnx_sha256 == hashlib.sha256(graph).hexdigest()


@pytest.mark.parametrize("target", EVERY_GPU)
def test_each_gpu_alone(target: str, bundles: Bundles) -> None:
    built = [build(bundles("unet"), precision=each, targets=(target,)) for each in PRECISIONS]
    assert len({each.stored.record.engine.sha256 for each in built}) == len(PRECISIONS)
    assert all(each.stored.path.name.startswith(f"{p}-sm{target}-") for each, p in zip(built, PRECISIONS))


def test_a_range_of_frames(bundles: Bundles) -> None:
    """The graph of a net whose sizes are free, for a range of them."""
    for precision in PRECISIONS:
        spec = build(
            bundles("unet"), precision=precision, targets=("86",), frames=parse_frames("1x32x32:1x64x64:4x128x96")
        ).stored.record.spec
        assert spec.frames.maximum == (4, 128, 96)


@pytest.mark.parametrize("name", NETS)
def test_engines_that_give_out_every_layer_are_built_too(name: str, bundles: Bundles) -> None:
    """What `diagnose` asks for when an engine is wrong. Whether it finds a fault is tested on a stand-in."""
    for precision in PRECISIONS:
        _, names, graph = graph_with_layers(read_bundle(bundles(name)).graph(precision))
        assert len(names) > 15
        made = build_graph(graph, NETS[name][1], EVERY_GPU[1:])
        assert made.layers > 20 and len(made.engine) > 10_000
