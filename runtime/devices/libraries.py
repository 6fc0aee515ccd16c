"""Which engine libraries can be used here, and if not, why: each is imported in a process of its own."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Literal

from .ask import ask, find_folder, is_installed
from .record import Flavour, Library, TensorRt
from .sources import Sources

_MODULES: tuple[tuple[Flavour, tuple[str, ...]], ...] = (
    ("tensorrt", ("tensorrt",)),
    ("tensorrt-rtx", ("tensorrt_rtx", "tensorrt_rtx_bindings")),
)
"""Import names; the second one of TensorRT-RTX is what its bindings' wheel has where the meta-package is missing."""
_DIST_PACKAGES = "/usr/lib/python3*/dist-packages"
_NOT_INSTALLED = "not installed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtAnswer:
    """What `probe.ask_tensorrt` tells."""

    version: str | None = None
    dla_cores: int | None = None
    dla_problem: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageAnswer:
    """What `probe.ask_package` and `probe.ask_onnxruntime` tell."""

    version: str | None = None
    providers: tuple[str, ...] | None = None
    problem: str | None = None


def read_tensorrt(sources: Sources, flavour: Flavour, *, count_dla: bool = False) -> tuple[TensorRt, TensorRtAnswer]:
    """One flavour of TensorRT, and the raw answer with the DLA cores if `count_dla` asks for them."""
    modules = dict(_MODULES)[flavour]
    module = next((name for name in modules if is_installed(name)), None)
    answer = _ask_tensorrt(sources, module, count_dla)
    path = None if module is None else find_folder(module)
    origin = _origin(sources, path)
    copies = sources.glob(f"{_DIST_PACKAGES}/{modules[0]}")
    found = TensorRt(
        flavour=flavour,
        module=module or modules[0],
        version=answer.version,
        path=path,
        origin=origin,
        distribution=_distribution(module) if origin == "environment" else None,
        problem=answer.problem,
        system_copy=copies[-1] if copies else None,
    )
    return found, answer


def read_onnxruntime(sources: Sources) -> tuple[Library, tuple[str, ...] | None]:
    """ONNX Runtime, and the providers that it was built with."""
    answer = _ask_package(sources, "onnxruntime", "onnxruntime")
    return Library(name="onnxruntime", version=answer.version, problem=answer.problem), answer.providers


def read_pycuda(sources: Sources) -> Library:
    """pycuda, which cannot be imported where there is no driver."""
    answer = _ask_package(sources, "pycuda", "package", "pycuda", "pycuda.driver")
    return Library(name="pycuda", version=answer.version, problem=answer.problem)


def _ask_tensorrt(sources: Sources, module: str | None, count_dla: bool) -> TensorRtAnswer:
    if module is None:
        return TensorRtAnswer(problem=_NOT_INSTALLED)
    answer = ask(sources, TensorRtAnswer, "tensorrt", module, *(["dla"] if count_dla else []))
    return TensorRtAnswer(problem=answer) if isinstance(answer, str) else answer


def _ask_package(sources: Sources, module: str, *question: str) -> PackageAnswer:
    if not is_installed(module):
        return PackageAnswer(problem=_NOT_INSTALLED)
    answer = ask(sources, PackageAnswer, *question)
    return PackageAnswer(problem=answer) if isinstance(answer, str) else answer


def _distribution(module: str | None) -> str | None:
    """What pip would have to uninstall for the module to go."""
    names = importlib.metadata.packages_distributions().get(module or "", ())
    return " ".join(sorted(set(names))) or None


def _origin(sources: Sources, path: str | None) -> Literal["system", "environment"] | None:
    if path is None:
        return None
    system = sources.glob(_DIST_PACKAGES)
    return "system" if any(path.startswith(str(sources.path(folder))) for folder in system) else "environment"
