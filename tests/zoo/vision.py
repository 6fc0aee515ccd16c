"""torchvision's nets with random weights, at the smallest input they take.

torchvision is installed in a folder of its own, for other packages import whatever torchvision they find, and its wheel
may not fit the torch that is installed (its compiled operators need the same build). None of these nets uses those
operators, but importing torchvision registers fake kernels for two of them, so these two are declared here where the
compiled ones do not load.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

LARGEST = 500_000_000
"""Parameters; the two larger nets do not fit into one 2 GiB protobuf message with their weights."""


sys.path.append(str(Path(sys.prefix) / "zoo"))


def _declare_operators() -> torch.library.Library | None:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    try:
        for path in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(path)
            return None
    except OSError:  # built for another torch
        pass
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


_LIBRARY = _declare_operators()  # the operators live as long as this object

from torchvision import models  # noqa: E402 - not before the operators are declared


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """One net of the zoo. size: height and width of its input."""

    name: str
    build: Callable[[], nn.Module]
    size: int = 64


_SIZES = {"alexnet": 224, "inception_v3": 75, "maxvit_t": 224, "swin": 128}
_TOO_LARGE = frozenset({"regnet_y_128gf", "vit_h_14"})

SAMPLE = (
    "efficientnet_b0", "lraspp_mobilenet_v3_large", "mobilenet_v3_small",
    "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1",
)  # fmt: skip
"""Small and fast: what runs with the test suite."""


def zoo() -> dict[str, Net]:
    """All classifiers and segmentation nets but the two that are LARGEST and more, by name."""
    names = [*models.list_models(module=models), *models.list_models(module=models.segmentation)]
    return {name: _net(name) for name in names if name not in _TOO_LARGE}


def _net(name: str) -> Net:
    options: dict[str, Any] = {"weights": None}
    size = next((n for prefix, n in _SIZES.items() if name.startswith(prefix)), 64)
    if name in models.list_models(module=models.segmentation):
        options["weights_backbone"] = None
    elif name in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # its own takes a minute
    elif name.startswith("vit"):
        options["image_size"] = size
    return Net(name=name, build=lambda: models.get_model(name, **options), size=size)
