"""`edgeslim doctor`: what this machine is and can do, and the way to what it cannot."""

from __future__ import annotations

import importlib.metadata
import json as json_module
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from .options import Json
from .screen import out, print_json

if TYPE_CHECKING:
    from edgeslim.runtime.devices import Ability, Device

_PARTS = {
    "run bundles": ("runtime", ("numpy", "onnxruntime")),
    "measure": ("bench", ("numpy", "onnxruntime")),
    "export": ("export", ("onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxslim", "onnxruntime")),
    "profile devices": ("profile", ("onnx-ir", "scipy", "onnxruntime")),
    "build on boards": ("remote", ("asyncssh",)),
    "train": ("train", ("torch", "safetensors", "lightning-fabric", "torchmetrics", "kornia", "pillow")),
    "write reports": ("train", ("jinja2", "matplotlib")),
}
_STANDS_IN = {"onnxruntime": "onnxruntime-gpu"}
"""Packages that serve as well under another name."""
_UNKNOWN = "unknown"


def run(json: Json = False) -> None:
    """Tell what this machine is, what works here, and what to install for what does not."""
    from edgeslim.runtime.devices import describe_device, engine_abilities, warnings_about
    from edgeslim.schema import to_json

    device = describe_device()
    abilities = [_ability(name, extra, packages) for name, (extra, packages) in _PARTS.items()]
    abilities += engine_abilities(device)
    machine, accelerators = _machine(), _accelerators(device)
    if json:
        content = {
            "edgeslim": importlib.metadata.version("edgeslim"),
            "machine": machine,
            "abilities": to_json(abilities),
            "accelerators": accelerators,
            "device": to_json(device),
            "warnings": list(warnings_about(device)),
        }
        print_json(json_module.dumps(content, indent=2))
        return
    out.print(abilities_table(abilities))
    _print_ways(abilities)
    warnings = warnings_about(device)
    for warning in warnings:
        out.print(Text.assemble(("warning: ", "bold yellow"), warning), soft_wrap=True)
    if warnings:
        out.print()
    out.print(device_table({**machine, **dict(_device_rows(device)), **accelerators}))


def abilities_table(abilities: list[Ability]) -> Table:
    """One row an ability."""
    title = f"edgeslim {importlib.metadata.version('edgeslim')}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("can", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("with", overflow="fold")
    for ability in abilities:
        have = [f"{package} {version or '(missing)'}" for package, version in ability.versions.items()]
        cells = Text(", ".join(have))
        if ability.note:
            cells.append(f"\n{ability.note}", "yellow" if not ability.ready else "dim")
        table.add_row(ability.name, "[green]yes[/]" if ability.ready else "[red]no[/]", cells)
    return table


def device_table(facts: dict[str, str | int | float | None]) -> Table:
    """What the machine is, one fact a row."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in facts.items():
        table.add_row(label, Text(_UNKNOWN if value is None else str(value)))
    return table


def _print_ways(abilities: list[Ability]) -> None:
    """Commands stand on lines of their own, unbroken, so that they can be copied."""
    ways: dict[str, list[str]] = {}
    for ability in abilities:
        if ability.install:
            ways.setdefault(ability.install, []).append(ability.name)
    for install, names in ways.items():
        out.print(f"[bold]to {', '.join(names)}[/]")
        for line in install.splitlines():
            out.print(Text("  " + line), soft_wrap=True)
    if ways:
        out.print()


def _ability(name: str, extra: str, packages: tuple[str, ...]) -> Ability:
    from edgeslim.runtime.devices import Ability
    from edgeslim.runtime.devices.abilities import pip

    versions = {package: _version(package) or _version(_STANDS_IN.get(package, package)) for package in packages}
    ready = all(version is not None for version in versions.values())
    return Ability(name=name, ready=ready, versions=versions, install=None if ready else pip(f"edgeslim[{extra}]"))


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


def _device_rows(device: Device) -> Iterator[tuple[str, str]]:
    """What the device says, or why it does not; Jetson's rows only on a Jetson."""
    jetson, reasons = device.jetson, device.reasons

    def known(value: object, name: str) -> str:
        return str(value) if value is not None else f"{_UNKNOWN}: {reasons.get(name, 'not told')}"

    yield "container", "yes" if device.container else "no"
    if jetson is not None:
        source = "" if jetson.jetpack_source != "documents" else " (by the L4T release)"
        yield "chip", f"{jetson.chip} ({jetson.family or 'not known to edgeslim'})"
        yield "L4T", known(jetson.l4t, "jetson.l4t")
        yield "JetPack", known(jetson.jetpack, "jetson.jetpack") + (source if jetson.jetpack else "")
        yield "DLA cores", known(jetson.dla_cores, "jetson.dla_cores")
        yield "power mode", known(jetson.power_mode, "jetson.power_mode")
    if device.gpus is None and not device.nvidia_hardware:
        yield "GPU", "none of NVIDIA's" if device.nvidia_hardware is False else known(None, "gpus")
    elif device.gpus is None:
        yield "GPU", known(None, "gpus")
    for number, gpu in enumerate(device.gpus or ()):
        capability = ".".join(map(str, gpu.compute_capability or ())) or _UNKNOWN
        memory = _UNKNOWN if gpu.memory_bytes is None else f"{gpu.memory_bytes / 2**30:.1f} GiB"
        limit = "" if gpu.power_limit_mw is None else f", limit {gpu.power_limit_mw / 1000:g} W"
        clock = "" if gpu.clock_mhz is None else f", {gpu.clock_mhz} of {gpu.max_clock_mhz or '?'} MHz"
        yield f"GPU {number}", f"{gpu.name or _UNKNOWN}, compute capability {capability}, {memory}{limit}{clock}"
    if device.nvidia_hardware is not False:
        if jetson is not None and not device.gpus:
            yield (
                "capability",
                known(".".join(map(str, jetson.compute_capability or ())) or None, "jetson.compute_capability"),
            )
        yield "driver", known(device.driver, "driver")
    cuda = device.cuda
    parts = {"driver": cuda.driver, "toolkit": cuda.toolkit, "cuda-bindings": cuda.runtime}
    yield "CUDA", ", ".join(f"{version} ({name})" for name, version in parts.items() if version is not None) or "none"
    for found in device.tensorrt:
        place = f"{found.version} in {found.path}" if found.version else found.problem or _UNKNOWN
        yield found.flavour, place if found.usable or found.version is None else f"{place}: {found.problem}"


def _accelerators(device: Device) -> dict[str, str | None]:
    """What ONNX Runtime and torch can use here; None where the package is missing."""
    providers = None if device.onnxruntime_providers is None else ", ".join(device.onnxruntime_providers)
    cuda = None
    if _version("torch"):
        import torch

        cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"onnxruntime": providers, "torch cuda": cuda}
