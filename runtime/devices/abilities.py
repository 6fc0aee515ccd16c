"""What a device can do with engines, and the way to what it cannot: no advice that does not fit this device.

On a Jetson TensorRT belongs to JetPack: what pip has is built for other processors and drivers, and hides JetPack's. On
a PC the driver decides which CUDA, and with it which wheel, can be used. Where there is no GPU of NVIDIA's there is
nothing to install for it, and that is said.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .jetpack import JetPackRelease, jetpack_of
from .record import Device, TensorRt

TENSORRT_PIN = "11.4.0.106"
"""What the advice for PCs and docker/Dockerfile.desktop install, of `tensorrt-cu12` and `tensorrt-cu13` alike."""
RTX_TARGETS = frozenset({(7, 5), (8, 6), (8, 9), (12, 0), (12, 1)})
"""Compute capabilities that TensorRT for RTX builds for and runs on."""
_NO_GPU = "no GPU of NVIDIA's was found: bundles run on the CPU, which needs nothing more"
_VENV = "python3 -m venv --system-site-packages .venv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """One thing edgeslim can do here, or what makes it possible."""

    name: str
    ready: bool
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """What it takes -> installed version; None: it is missing or does not work."""
    install: str | None = None
    """Commands and sentences, one a line; where it is ready, the way to more of it, or None."""
    note: str | None = None
    """What it is good for here, or why it cannot be."""


def engine_abilities(device: Device) -> tuple[Ability, ...]:
    """Building engines, running them, and running bundles on a GPU without one."""
    return _building(device), _running(device), _onnxruntime_on_gpu(device)


def warnings_about(device: Device) -> tuple[str, ...]:
    """What works now, or seems to, and will not last."""
    return tuple(_warnings(device))


def _building(device: Device) -> Ability:
    full, rtx = device.find_tensorrt("tensorrt"), device.find_tensorrt("tensorrt-rtx")
    versions = {"tensorrt": full.version if full else None, "tensorrt-rtx": rtx.version if rtx else None}
    if full is not None and device.has_gpu:
        return Ability(name="build engines", ready=True, versions=versions)
    lines = list(_way_to_tensorrt(device))
    if rtx is not None and device.jetson is None:
        note = "with what is here for GeForce RTX only: --backend tensorrt-rtx"
        more = "\n".join(["for other GPUs, the full TensorRT:", *lines]) if device.has_gpu else None
        return Ability(name="build engines", ready=True, versions=versions, install=more, note=note)
    if device.jetson is None and device.architecture == "x86_64":
        lines.append(f"engines for GeForce RTX are built without a GPU: {pip('edgeslim[rtx]')}")
    return Ability(name="build engines", ready=False, versions=versions, install="\n".join(lines), note=_reason(device))


def _running(device: Device) -> Ability:
    full, rtx = device.find_tensorrt("tensorrt"), device.find_tensorrt("tensorrt-rtx")
    bindings, pycuda = device.cuda.bindings, device.cuda.pycuda
    memory = bindings.usable or pycuda.usable
    fits_rtx = rtx is not None and device.compute_capability in RTX_TARGETS
    versions = {"tensorrt": full.version if full else None}
    if rtx is not None:
        versions["tensorrt-rtx"] = rtx.version
    versions["cuda-bindings"] = bindings.version if bindings.usable else None
    if not bindings.usable and pycuda.usable:
        versions["pycuda"] = pycuda.version
    if device.has_gpu and (full is not None or fits_rtx) and memory:
        return Ability(name="run engines", ready=True, versions=versions)
    lines: list[str] = []
    if (full is None and not fits_rtx) or not device.has_gpu:
        lines += _way_to_tensorrt(device)
    if not memory and device.has_gpu and _python_works(device):
        lines.append(pip("edgeslim[tensorrt]", *_bindings_for(device)))
    return Ability(name="run engines", ready=False, versions=versions, install="\n".join(lines), note=_reason(device))


def _onnxruntime_on_gpu(device: Device) -> Ability:
    name, library = "run bundles on a GPU", device.onnxruntime
    on_gpu = [p for p in device.onnxruntime_providers or () if p.startswith(("CUDA", "Tensorrt", "NvTensorRtRtx"))]
    version = library.version if library.usable and on_gpu else None
    if device.has_gpu and on_gpu:
        return Ability(name=name, ready=True, versions={"onnxruntime-gpu": version}, note=", ".join(on_gpu))
    if not device.has_gpu:
        lines = list(_way_to_gpu(device))
    elif device.jetson is not None or device.architecture != "x86_64":
        lines = [
            "pip's index has no onnxruntime-gpu for this processor: run an engine instead, or take the vendor's wheel"
        ]
    else:
        cuda = _cuda_major(device)
        wheel = "onnxruntime-gpu[cuda,cudnn]" + ("" if cuda is None or cuda >= 13 else "<1.26")
        lines = [f"{sys.executable} -m pip uninstall onnxruntime", pip(wheel)]
    return Ability(name=name, ready=False, versions={"onnxruntime-gpu": version}, install="\n".join(lines))


def _way_to_tensorrt(device: Device) -> Iterator[str]:
    """What to do until `import tensorrt` works here and finds a GPU; nothing is left to do where it does."""
    if not device.has_gpu:
        yield from _way_to_gpu(device)
    elif device.jetson is not None:
        yield from _way_on_jetson(device)
    elif device.find_tensorrt("tensorrt") is None:
        yield from _way_on_desktop(device)


def _way_to_gpu(device: Device) -> Iterator[str]:
    if device.jetson is not None:
        yield "the driver, a part of L4T, shows no GPU: start a container with --runtime nvidia, or flash the board"
    elif device.container and device.nvidia_hardware is not False:
        yield "if the host has a GPU of NVIDIA's: start the container with --gpus all"
    elif device.nvidia_hardware:
        yield "install NVIDIA's driver, version 580 or newer for CUDA 13; on Ubuntu: sudo ubuntu-drivers install"
    else:
        yield _NO_GPU


def _way_on_jetson(device: Device) -> Iterator[str]:
    full, row = _full(device), _release(device)
    if row is not None and not row.python_supported:
        yield f"JetPack {row.name} has Python {row.python}, which edgeslim does not run on. On a PC:"
        yield "edgeslim build BUNDLE --print-trtexec"
        yield "and run the line that it prints here, where trtexec is /usr/src/tensorrt/bin/trtexec"
        return
    if full.usable:
        return
    if full.shadows:
        yield _remove(full)
    if full.system_copy is not None and row is not None and row.python != _python():
        yield f"JetPack's TensorRT is for Python {row.python}, this is {_python()}: python{row.python} -m venv " + (
            "--system-site-packages .venv"
        )
    elif full.system_copy is not None:
        if not full.shadows:
            yield f"TensorRT is in {full.system_copy}, which this environment does not see: {_VENV}"
    elif device.container:
        yield "use an image that has JetPack's TensorRT, started with --runtime nvidia: docker/README.md"
    else:
        yield "sudo apt install python3-libnvinfer"
        yield f"{_VENV}    # an environment that sees JetPack's packages"


def _way_on_desktop(device: Device) -> Iterator[str]:
    cuda = _cuda_major(device)
    if cuda is None:
        yield pip("edgeslim[tensorrt]")
        yield "edgeslim doctor    # once more: the driver's version, which these packages read, decides what comes next"
    elif cuda >= 12:
        yield pip(f"tensorrt-cu{min(cuda, 13)}=={TENSORRT_PIN}")
    else:
        yield f"the driver knows CUDA {device.cuda.driver}, TensorRT needs 12: install driver 580 or newer"


def _warnings(device: Device) -> Iterator[str]:
    full = _full(device)
    if device.jetson is None:
        return
    if full.shadows:
        yield f"{full.path} hides JetPack's {full.system_copy} and is not made for this board: {_remove(full)}"
    elif full.origin == "environment":
        yield f"TensorRT in {full.path} is not JetPack's and is not made for this board: {_remove(full)}"
    row = _release(device)
    if row is not None and full.version is not None and not full.version.startswith(row.tensorrt):
        yield f"TensorRT is {full.version}; documents give JetPack {row.name} {row.tensorrt}"


def _reason(device: Device) -> str | None:
    """Why the full TensorRT does not work, where it is there."""
    full = _full(device)
    return f"import tensorrt: {full.problem}" if full.problem is not None and full.problem != "not installed" else None


def _full(device: Device) -> TensorRt:
    return next(found for found in device.tensorrt if found.flavour == "tensorrt")


def _release(device: Device) -> JetPackRelease | None:
    return None if device.jetson is None else jetpack_of(device.jetson.l4t)


def _python_works(device: Device) -> bool:
    row = _release(device)
    return row is None or row.python_supported


def _bindings_for(device: Device) -> list[str]:
    """cuda-bindings of a newer CUDA than the driver's lack half of their functions."""
    cuda = _cuda_major(device)
    return [f"cuda-bindings<{cuda + 1}"] if cuda is not None and cuda < 13 else []


def _cuda_major(device: Device) -> int | None:
    row = _release(device)
    version = device.cuda.driver or (row.cuda if row is not None else None)
    return int(version.partition(".")[0]) if version is not None else None


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _remove(full: TensorRt) -> str:
    if full.distribution is None:
        return f"take {full.path} off Python's path"
    return f"{sys.executable} -m pip uninstall {full.distribution}"


def pip(*packages: str) -> str:
    """The command that installs packages into this environment."""
    return f"{sys.executable} -m pip install " + " ".join(f"'{package}'" for package in packages)
