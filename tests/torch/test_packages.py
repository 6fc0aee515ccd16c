"""Nets of other packages: torchvision's for real where it is, the others by packages of the same interface."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeslim.errors import ConfigError
from edgeslim.trainer.models import build_model

STAND_INS = {
    "timm": """
        from torch import nn

        def is_model(name):
            return name == "mobilenetv3_small_100"

        def list_models():
            return ["mobilenetv3_small_100"]

        def create_model(name, pretrained, num_classes, in_chans, drop_rate=0.0):
            assert pretrained is False
            pool = nn.AdaptiveAvgPool2d(1)
            return nn.Sequential(nn.Conv2d(in_chans, 8, 3), pool, nn.Flatten(), nn.Linear(8, num_classes))
    """,
    "segmentation_models_pytorch": """
        from torch import nn

        class Unet(nn.Conv2d):
            def __init__(self, encoder_name="resnet34", encoder_weights="imagenet", in_channels=3, classes=1):
                assert encoder_weights is None
                super().__init__(in_channels, classes, 1)
                self.encoder = nn.Identity()
                self.encoder.output_stride = 32
    """,
}


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, source in STAND_INS.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    for name in STAND_INS:  # monkeypatch puts back what was there, and leaves what the test itself imported
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("stand_ins")
def test_classes_and_channels_reach_each_package_in_its_own_words() -> None:
    net = build_model("timm:mobilenetv3_small_100", {"drop_rate": 0.1}, classes=7, in_channels=1)
    assert net(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    net = build_model("smp:Unet", {"encoder_name": "resnet18"}, classes=5, in_channels=3)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 5, 32, 32)
    assert net.size_multiple == 32


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("timm:mobilenet_v3", {}, "timm has no net 'mobilenet_v3'\nhint: did you mean mobilenetv3_small_100"),
        ("smp:UNet", {}, "smp has no net 'UNet'"),
        ("smp:nn", {}, "smp has no net 'nn'"),
        ("smp:Unet", {"classes": 3}, "model.args.classes: smp:Unet takes it from the data"),
        ("timm:mobilenetv3_small_100", {"wide": 3}, "could not be built: TypeError: .*wide"),
    ],
)
def test_wrong_requests(name: str, args: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){expected}"):
        build_model(name, args, classes=2)


@pytest.mark.parametrize(
    ("name", "module", "line"),
    [
        ("timm:resnet18", "timm", "pip install timm"),
        ("smp:Unet", "segmentation_models_pytorch", "pip install segmentation-models-pytorch"),
        ("torchvision:resnet18", "torchvision", "pip install torchvision"),
    ],
)
def test_a_package_that_is_not_installed(name: str, module: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded in [n for n in sys.modules if n.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not (Path(p) / module).exists()])
    with pytest.raises(ConfigError) as caught:
        build_model(name, {}, classes=2)
    assert caught.value.message == f"model {name}: {module} is not installed" and caught.value.hint == line


@pytest.mark.slow
def test_no_net_of_torchvision_fetches_a_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tests.zoo.vision", exc_type=ImportError)

    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("weights were to be fetched")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fetch)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    build_model("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", {}, classes=4)


@pytest.mark.slow
def test_nets_of_torchvision() -> None:
    pytest.importorskip("tests.zoo.vision", exc_type=ImportError)
    net = build_model("torchvision:resnet18", {}, classes=7).eval()
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    net = build_model("torchvision:lraspp_mobilenet_v3_large", {}, classes=4).eval()
    assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 64, 64)
    with pytest.raises(ConfigError, match="did you mean resnet18"):
        build_model("torchvision:resnet19", {}, classes=7)
    with pytest.raises(ConfigError, match="takes RGB images, the data has 1 channel"):
        build_model("torchvision:resnet18", {}, classes=7, in_channels=1)
    with pytest.raises(ConfigError, match="unexpected keyword argument 'wide'"):
        build_model("torchvision:resnet18", {"wide": 2}, classes=7)
