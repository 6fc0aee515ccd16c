"""`edgeslim doctor`: what this machine can do, and the command that installs what is missing."""

from __future__ import annotations

import importlib.metadata
import json as json_module
import sys
from dataclasses import asdict, dataclass

from rich import box
from rich.table import Table

from .options import Json
from .screen import out, print_json

_PARTS = {
    "run bundles": ("runtime", ("numpy", "onnxruntime")),
    "measure": ("bench", ("numpy", "onnxruntime")),
    "export": ("export", ("onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxslim", "onnxruntime")),
    "build on boards": ("remote", ("asyncssh",)),
    "train": ("train", ("torch", "safetensors", "lightning-fabric", "torchmetrics", "kornia", "pillow")),
    "write reports": ("train", ("jinja2", "matplotlib")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """One thing edgeslim can do here, or the command that makes it possible."""

    name: str
    ready: bool
    versions: dict[str, str | None]
    install: str | None


def run(json: Json = False) -> None:
    """Tell what works here: edgeslim's parts, the engines, the machine."""
    abilities = [_ability(name, extra, packages) for name, (extra, packages) in _PARTS.items()]
    machine = _machine()
    if json:
        content = {
            "edgeslim": importlib.metadata.version("edgeslim"),
            "machine": machine,
            "abilities": [asdict(a) for a in abilities],
            "accelerators": _accelerators(),
        }
        print_json(json_module.dumps(content, indent=2))
        return
    table = Table(title=f"edgeslim {importlib.metadata.version('edgeslim')}", title_justify="left", box=box.SIMPLE)
    for column in ("can", "", "with", "to install"):
        table.add_column(column, overflow="fold")
    for ability in abilities:
        have = ", ".join(f"{package} {version or '(missing)'}" for package, version in ability.versions.items())
        table.add_row(ability.name, "[green]yes[/]" if ability.ready else "[red]no[/]", have, ability.install or "")
    out.print(table)
    for label, value in {**machine, **_accelerators()}.items():
        out.print(f"{label:<16}{'unknown' if value is None else value}", highlight=False)


def _ability(name: str, extra: str, packages: tuple[str, ...]) -> Ability:
    versions = {package: _version(package) for package in packages}
    ready = all(version is not None for version in versions.values())
    install = None if ready else f"{sys.executable} -m pip install 'edgeslim[{extra}]'"
    return Ability(name=name, ready=ready, versions=versions, install=install)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, str | int | float | None]:
    from edgeslim.bench.machine import describe_machine

    found = describe_machine()
    return {
        "board": found.board,
        "cpu": found.cpu,
        "architecture": found.architecture,
        "usable cores": found.usable_cores,
        "memory, bytes": found.memory_bytes,
        "os": found.os,
        "python": found.python,
    }


def _accelerators() -> dict[str, str | None]:
    """What ONNX Runtime and torch can use here; None where the package is missing."""
    providers = cuda = None
    if _version("onnxruntime") or _version("onnxruntime-gpu"):
        import onnxruntime

        providers = ", ".join(onnxruntime.get_available_providers())
    if _version("torch"):
        import torch

        cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"onnxruntime": providers, "torch cuda": cuda}
