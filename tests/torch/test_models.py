"""Nets: shapes, published sizes, tracing with open sizes, and a clear word for every wrong request."""

from __future__ import annotations

import math
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim

from edgeslim.errors import ConfigError
from edgeslim.trainer.models import BUILT_IN, MobileNetV3LRASPP, UNet, build_model


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("upsample", ["transpose", "resize"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_unet_keeps_the_size(upsample: Any, depth: int) -> None:
    net = UNet(in_channels=4, classes=5, width=4, depth=depth, upsample=upsample).eval()
    assert net.size_multiple == 2**depth
    height, width = 3 * net.size_multiple, 2 * net.size_multiple
    assert net(torch.randn(2, 4, height, width)).shape == (2, 5, height, width)


def test_unet_has_the_size_of_the_paper_at_its_width() -> None:
    """31.03 M parameters for width 64, depth 4 is the figure of the literature."""
    with torch.device("meta"):
        assert 31.0e6 < parameters(UNet(in_channels=1, classes=2, width=64, depth=4)) < 31.1e6


@pytest.mark.parametrize("variant", ["small", "large"])
@pytest.mark.parametrize(("dilated", "reduced_tail"), [(True, True), (False, False)])
def test_mobilenet_takes_any_size(variant: Any, dilated: bool, reduced_tail: bool) -> None:
    net = MobileNetV3LRASPP(variant, classes=3, width=0.35, dilated=dilated, reduced_tail=reduced_tail).eval()
    for size in ((64, 96), (33, 50)):
        assert net(torch.randn(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize(("dilated", "stride"), [(True, 16), (False, 32)])
def test_mobilenet_output_stride(dilated: bool, stride: int) -> None:
    net = MobileNetV3LRASPP("small", dilated=dilated).eval()
    fine = net.early(net.stem(torch.randn(1, 3, 128, 64)))
    assert fine.shape[2:] == (16, 8)
    assert net.late(fine).shape[2:] == (128 // stride, 64 // stride)


@pytest.mark.parametrize(("variant", "expected"), [("small", 927_008), ("large", 2_971_952)])
def test_mobilenet_backbone_has_the_published_size(variant: Any, expected: int) -> None:
    """The classification backbone: torchvision's published 2,542,856 and 5,483,032 less their two-layer classifiers."""
    with torch.device("meta"):
        net = MobileNetV3LRASPP(variant, dilated=False, reduced_tail=False)
    assert parameters(net) - parameters(net.head) == expected


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("unet", {"width": 4, "depth": 2}),
        ("unet", {"width": 4, "depth": 1, "upsample": "resize"}),
        ("mobilenetv3-small", {"width": 0.35}),
    ],
)
def test_traces_with_open_batch_and_size(name: str, args: dict[str, Any]) -> None:
    """The exporter's own call: names survive, N, H, W stay symbols, and other sizes compute the same."""
    torch.manual_seed(0)
    net = build_model(name, args, classes=2, in_channels=3).eval()
    batch, height, width = Dim.AUTO, Dim.AUTO, Dim.AUTO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about its own internals
        program = torch.onnx.export(
            net,
            (torch.randn(2, 3, 64, 96),),
            dynamo=True,
            optimize=False,
            verbose=False,
            dynamic_shapes=({0: batch, 2: height, 3: width},),
        )
    assert program is not None
    graph = program.model.graph
    assert {n for n, _ in net.named_parameters()} <= set(graph.initializers)
    given, found = (list(value.shape or ()) for value in (graph.inputs[0], graph.outputs[0]))
    assert found == [given[0], 2, given[2], given[3]]
    assert [isinstance(d, int) for d in found] == [False, True, False, False]
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 64, 96), (3, 3, 32, 160)):
        x = torch.randn(*shape)
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(got), net(x), rtol=1e-4, atol=1e-5)


SMALL: dict[str, dict[str, Any]] = {
    "unet": {"width": 4},
    "mobilenetv3-small": {"width": 0.35},
    "mobilenetv3-large": {"width": 0.35},
    "vgg16-bn": {"width": 0.1},
    "vgg19-bn": {"width": 0.1},
    "lenet-300-100": {"side": 64},
    "lenet-5": {"side": 64},
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_nets_take_classes_and_channels_from_the_data(name: str) -> None:
    net = build_model(name, SMALL.get(name, {}), classes=7, in_channels=2).eval()
    logits = net(torch.randn(1, 2, 64, 64))
    assert logits.shape in ((1, 7, 64, 64), (1, 7))
    segments = name.startswith(("unet", "mobilenet"))
    assert (logits.ndim == 4) == segments


def test_initialisation_follows_the_seed() -> None:
    nets = []
    for _ in range(2):
        torch.manual_seed(11)
        nets.append(build_model("unet", {"width": 4, "depth": 1}, classes=2))
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters()))


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("unet++", {}, r"no model is called 'unet\+\+'; built in are unet, .*\nhint: did you mean unet\?"),
        ("mobilenet-v3-small", {}, r"did you mean mobilenetv3-small\?"),
        ("zzz", {}, r"hint: your own net is given as my_package\.nets:build"),
        ("unet", {"widht": 8}, r"model\.args\.widht: unet has no such argument; allowed are width, depth, upsample"),
        ("unet", {"classes": 2}, r"model\.args\.classes: .*\nhint: classes comes from the data"),
        ("unet", {"width": "8"}, r"model\.args\.width: input should be a valid integer.*\(got '8'\)"),
        ("unet", {"width": True}, r"model\.args\.width: input should be a valid integer"),
        ("unet", {"width": 0}, r"unet: width is 0"),
        ("unet", {"depth": -1}, r"unet: depth is -1"),
        ("unet", {"depth": 40}, r"unet: width 32 at depth 40 makes \d+ channels at the lowest level"),
        ("unet", {"upsample": "bilinear"}, r"model\.args\.upsample: input should be 'transpose' or 'resize'"),
        ("mobilenetv3-small", {"variant": "large"}, r"model\.args\.variant: .* allowed are width, head_width"),
        ("mobilenetv3-small", {"width": -1.0}, r"mobilenetv3: width -1\.0"),
        ("mobilenetv3-small", {"width": math.inf}, r"mobilenetv3: width inf"),
        ("vgg16-bn", {"width": math.inf}, r"vgg: width is inf"),
    ],
)  # fmt: skip
def test_wrong_requests_for_built_in_nets(name: str, args: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){expected}"):
        build_model(name, args, classes=2)


USER_NETS = """
    from torch import nn

    def build(width, classes, deep=False):
        return nn.Conv2d(3, classes * width, 1)

    def plain(width=4):
        return nn.Conv2d(3, width, 1)

    def anything(**options):
        return nn.Conv2d(3, options["width"], 1)

    def no_net():
        return 3

    def fails():
        raise ValueError("width and height differ")

    class Net(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.classes = classes

        @classmethod
        def small(cls, classes):
            return cls(classes)

    number = 3
"""


@pytest.fixture
def user_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with `user_package/nets.py`, forgotten again afterwards."""
    package = tmp_path / "user_package"
    package.mkdir()
    (package / "nets.py").write_text(textwrap.dedent(USER_NETS))
    (package / "broken.py").write_text("import a_package_that_is_not_there\n")
    (package / "typo.py").write_text("def build(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [n for n in sys.modules if n.partition(".")[0] == "user_package"]:
        del sys.modules[name]


@pytest.mark.usefixtures("user_nets")
def test_user_nets_get_classes_only_if_they_take_them() -> None:
    def channels(path: str, args: dict[str, Any]) -> int:
        net = build_model(f"user_package.nets:{path}", args, classes=5)
        assert isinstance(net, nn.Conv2d)
        return net.out_channels

    assert channels("build", {"width": 2}) == 10
    assert channels("build", {"width": 2, "classes": 3, "deep": True}) == 6
    assert channels("plain", {}) == 4
    assert channels("anything", {"width": 9}) == 9
    assert build_model("user_package.nets:Net", {}, classes=5).classes == 5
    assert build_model("user_package.nets:Net.small", {}, classes=5).classes == 5


@pytest.mark.usefixtures("user_nets")
@pytest.mark.parametrize(
    ("path", "args", "expected"),
    [
        ("nowhere.nets:build", {}, r"importing nowhere\.nets failed: ModuleNotFoundError.*\nhint: install it"),
        ("user_package.none:build", {}, r"importing user_package\.none failed: ModuleNotFoundError"),
        ("user_package.broken:build", {}, r"a_package_that_is_not_there.*\nhint: python -c 'import "),
        ("user_package.typo:build", {}, r"importing user_package\.typo failed: SyntaxError"),
        ("user_package.nets:buidl", {}, r"user_package\.nets has no 'buidl'\nhint: it has build"),
        ("user_package.nets:", {}, r"user_package\.nets has no ''"),
        (":build", {}, r"importing  failed"),
        ("user_package.nets:number", {}, r"number is int, not callable"),
        ("user_package.nets:no_net", {}, r"returned int, not a torch\.nn\.Module"),
        ("user_package.nets:fails", {}, r"could not be built: ValueError: width and height differ"),
        ("user_package.nets:build", {"wide": 3}, r"model\.args\.wide: .* allowed are width, classes, deep"),
        ("user_package.nets:build", {}, r"model\.args\.width: missing"),
        ("user_package.nets:no_net", {"width": 3}, r"no such argument; it takes none"),
    ],
)  # fmt: skip
def test_wrong_requests_for_user_nets(path: str, args: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){expected}"):
        build_model(path, args, classes=2)
