"""From a name and keyword arguments to a net.

A built-in name, a net of another package by that package's name (`torchvision:resnet18`, see `packages`), or
`package.module:attribute`: any callable that returns an `nn.Module`, imported from the installed packages or from the
working directory. Everything that can be wrong with any of them is one ConfigError.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import inspect
import os
import sys
import typing
from collections.abc import Callable, Mapping

from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError
from torch import nn

from edgeslim.errors import ConfigError, EdgeslimError

from .cifar_resnet import CifarResNet
from .lenet import LeNet5, LeNet300100
from .mobilenetv3 import MobileNetV3LRASPP
from .packages import build_package_net, is_package_net
from .unet import UNet
from .vgg import VGG

Builder = Callable[..., object]

BUILT_IN: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "mobilenetv3-small": functools.partial(MobileNetV3LRASPP, "small"),
    "mobilenetv3-large": functools.partial(MobileNetV3LRASPP, "large"),
    "lenet-300-100": LeNet300100,
    "lenet-5": LeNet5,
    "resnet20": functools.partial(CifarResNet, 3),
    "resnet56": functools.partial(CifarResNet, 9),
    "vgg16-bn": functools.partial(VGG, 16),
    "vgg19-bn": functools.partial(VGG, 19),
}
_FROM_DATA = ("classes", "in_channels")


def build_model(name: str, args: Mapping[str, JsonValue], classes: int, in_channels: int = 3) -> nn.Module:
    """The net `name` with keyword arguments `args`, freshly initialised from torch's global generator.

    Built-in nets take `classes` and `in_channels` from the data. A net by import path gets `args`, and these two as
    well if it has parameters of these names that `args` leaves open.
    Raises ConfigError for an unknown name, an argument it does not take, a failing import or a failing builder.
    """
    if is_package_net(name):
        return build_package_net(name, args, classes, in_channels)
    if ":" in name:
        return _build_imported(name, args, {"classes": classes, "in_channels": in_channels})
    if name not in BUILT_IN:
        near = difflib.get_close_matches(name, BUILT_IN, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        known = ", ".join(BUILT_IN)
        raise ConfigError(
            f"model.name: no model is called {name!r}; built in are {known}",
            f"{hint}your own net is given as my_package.nets:build",
        )
    builder = BUILT_IN[name]
    options = {k: p for k, p in inspect.signature(builder).parameters.items() if k not in _FROM_DATA}
    _check_names(name, args, options)
    _check_types(builder, args)
    return builder(**args, classes=classes, in_channels=in_channels)


def _build_imported(path: str, args: Mapping[str, JsonValue], from_data: Mapping[str, int]) -> nn.Module:
    builder = _import(path)
    arguments = dict(args)
    parameters: Mapping[str, inspect.Parameter] | None = None
    with contextlib.suppress(TypeError, ValueError):  # a few builtins have no signature: the call itself will tell
        parameters = inspect.signature(builder).parameters
    if parameters is not None:
        for name in from_data.keys() & parameters.keys():
            arguments.setdefault(name, from_data[name])
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            _check_names(path, arguments, parameters)
    try:
        model = builder(**arguments)
    except EdgeslimError:
        raise
    except Exception as error:
        raise ConfigError(
            f"model {path} could not be built: {type(error).__name__}: {error}", "check model.args"
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model {path} returned {type(model).__name__}, not a torch.nn.Module", "return the net itself"
        )
    return model


def _import(path: str) -> Builder:
    """The callable at `package.module:attribute`; the working directory is searched last."""
    module_name, _, attribute = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:  # an import runs the user's code: anything may happen
        missing = isinstance(error, ModuleNotFoundError) and error.name and module_name.startswith(error.name)
        hint = "install it, or run where it lies" if missing else f"python -c 'import {module_name}' shows it"
        raise ConfigError(
            f"model {path}: importing {module_name} failed: {type(error).__name__}: {error}", hint
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [n for n in vars(found) if not n.startswith("_")] if hasattr(found, "__dict__") else []
            near = difflib.get_close_matches(part, public, n=3, cutoff=0.4)
            hint = f"it has {', '.join(near)}" if near else "write package.module:attribute"
            raise ConfigError(f"model {path}: {module_name} has no {attribute!r}", hint)
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"model {path}: {attribute} is {type(found).__name__}, not callable", "name a function")
    return found


def _check_names(name: str, args: Mapping[str, JsonValue], options: Mapping[str, inspect.Parameter]) -> None:
    for key in args:
        if key not in options:
            allowed = f"allowed are {', '.join(options)}" if options else "it takes none"
            because = f"{key} comes from the data" if key in _FROM_DATA else "correct or remove it"
            raise ConfigError(f"model.args.{key}: {name} has no such argument; {allowed}", because)
    for key, parameter in options.items():
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if key not in args and not optional:
            raise ConfigError(f"model.args.{key}: missing; {name} needs it", "add it to the recipe")


def _check_types(builder: Callable[..., nn.Module], args: Mapping[str, JsonValue]) -> None:
    """Hold each argument against the constructor's own annotation, strictly: '32' is not 32."""
    constructor = builder.func if isinstance(builder, functools.partial) else builder
    hints = typing.get_type_hints(constructor.__init__)
    for key, value in args.items():
        try:
            TypeAdapter(hints[key], config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise ConfigError(
                f"model.args.{key}: {message[:1].lower()}{message[1:]} (got {value!r})", "correct the recipe"
            ) from error
