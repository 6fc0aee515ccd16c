"""Nets of other packages, by the package's own names: `torchvision:resnet18`, `timm:mobilenetv3_small_100`, `smp:Unet`.

Each package has its own word for the number of classes and for "no pretrained weights"; this file knows them. None of
the packages is required: what is not installed is a ConfigError with the line that installs it.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType

from pydantic import JsonValue
from torch import Tensor, nn

from edgeslim.errors import ConfigError, first_line

_INSTALL = {
    "torchvision": ("torchvision", "pip install torchvision"),
    "timm": ("timm", "pip install timm"),
    "smp": ("segmentation_models_pytorch", "pip install segmentation-models-pytorch"),
}
"""Short name -> module to import, line that installs it."""


def is_package_net(name: str) -> bool:
    """Whether `name` is a net of a package known here."""
    short, colon, _ = name.partition(":")
    return bool(colon) and short in _INSTALL


def build_package_net(name: str, args: Mapping[str, JsonValue], classes: int, in_channels: int) -> nn.Module:
    """The net, with fresh weights. Raises ConfigError where package, net or argument is not to be had."""
    short, _, net = name.partition(":")
    build = {"torchvision": _torchvision, "timm": _timm, "smp": _smp}[short]
    package = _import(name, *_INSTALL[short])
    _check_free(name, args)
    try:
        model = build(package, net, dict(args), classes, in_channels)
    except ConfigError:
        raise
    except Exception as error:  # a foreign builder raises whatever it likes
        raise ConfigError(
            f"model {name} could not be built: {type(error).__name__}: {first_line(error)}", "check model.args"
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model {name} is {type(model).__name__}, not a torch.nn.Module", f"name a net of {short}")
    return model


class Answer(nn.Module):
    """A net that answers with more than logits: takes them out of a dict's `out`, or the first of a tuple."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        answer = self.net(x)
        logits: Tensor = (
            answer["out"] if isinstance(answer, dict) else answer if isinstance(answer, Tensor) else answer[0]
        )
        return logits


def _torchvision(package: ModuleType, net: str, args: dict[str, JsonValue], classes: int, in_channels: int) -> object:
    models = importlib.import_module("torchvision.models")
    known: list[str] = models.list_models()
    if net not in known:
        raise _unknown("torchvision", net, known)
    if in_channels != 3:
        raise ConfigError(f"torchvision:{net} takes RGB images, the data has {in_channels} channel", "use timm")
    options: dict[str, object] = {"weights": None, "num_classes": classes, **args}
    segments = net in models.list_models(module=models.segmentation)
    if "weights_backbone" in inspect.signature(models.get_model_builder(net)).parameters:
        options.setdefault("weights_backbone", None)  # or it would fetch one from the network
    if net in ("googlenet", "inception_v3"):
        options.setdefault("init_weights", True)
    model = models.get_model(net, **options)
    return Answer(model) if segments or net in ("googlenet", "inception_v3") else model


def _timm(package: ModuleType, net: str, args: dict[str, JsonValue], classes: int, in_channels: int) -> object:
    if not package.is_model(net):
        raise _unknown("timm", net, package.list_models())
    return package.create_model(net, pretrained=False, num_classes=classes, in_chans=in_channels, **args)


def _smp(package: ModuleType, net: str, args: dict[str, JsonValue], classes: int, in_channels: int) -> object:
    build: Callable[..., object] | None = getattr(package, net, None)
    if not isinstance(build, type) or not issubclass(build, nn.Module):
        nets = [n for n, v in vars(package).items() if isinstance(v, type) and issubclass(v, nn.Module)]
        raise _unknown("smp", net, nets)
    model = build(**{"encoder_weights": None, "in_channels": in_channels, "classes": classes, **args})
    stride = getattr(getattr(model, "encoder", None), "output_stride", None)
    if isinstance(model, nn.Module) and isinstance(stride, int):
        model.size_multiple = stride  # type: ignore[assignment]
    return model


def _import(name: str, module: str, install: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module:
            raise ConfigError(f"model {name}: importing {module} failed: {error}", install) from error
        raise ConfigError(f"model {name}: {module} is not installed", install) from error
    except Exception as error:  # a compiled package that was built for another torch, for one
        raise ConfigError(
            f"model {name}: importing {module} failed: {type(error).__name__}: {first_line(error)}",
            f"install one that fits your torch: {install}",
        ) from error


def _check_free(name: str, args: Mapping[str, JsonValue]) -> None:
    for key in ("classes", "num_classes", "in_channels", "in_chans"):
        if key in args:
            raise ConfigError(f"model.args.{key}: {name} takes it from the data", "remove it from the recipe")


def _unknown(package: str, net: str, known: list[str]) -> ConfigError:
    near = difflib.get_close_matches(net, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"{package} lists its nets"
    return ConfigError(f"model.name: {package} has no net {net!r}", hint)
