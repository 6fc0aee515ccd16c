"""What is known of a device, as frozen dataclasses with one JSON form.

None means that the device does not tell; `Device.reasons` says why, by the field's name. Nothing here is guessed: a
figure that comes from documents instead of the device has its source beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Flavour: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]
"""The full TensorRT, or TensorRT for RTX, which needs no GPU to build. Their engines are not interchangeable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jetson:
    """What a Jetson board says of itself."""

    board: str | None
    """The device tree's model, for instance "NVIDIA Jetson AGX Orin Developer Kit"."""
    chip: str
    """"tegra194", "tegra234" or "tegra264"; another Tegra as it calls itself."""
    family: str | None
    """"Xavier", "Orin" or "Thor"; None for a chip that edgeslim does not know."""
    l4t: str | None
    """Release of Jetson Linux, for instance "36.4.4"."""
    jetpack: str | None
    """The JetPack that this is: one version, or the range that shares this L4T ("6.1 to 6.2.2")."""
    jetpack_source: Literal["package", "documents"] | None
    """Where `jetpack` is from: the installed package `nvidia-jetpack`, or the vendor's table of releases."""
    compute_capability: tuple[int, int] | None
    """By the chip, from the vendor's documents; what a driver says of a GPU stands in `Device.gpus`."""
    dla_cores: int | None
    """What TensorRT's builder counted."""
    power_mode: str | None
    """The name of the mode that `nvpmodel -q` tells, for instance "MAXN"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as the driver describes it."""

    name: str | None
    pci: str | None
    """Bus address, "0000:01:00.0"."""
    compute_capability: tuple[int, int] | None
    memory_bytes: int | None
    integrated: bool | None
    """Shares its memory with the processor."""
    power_limit_mw: int | None = None
    clock_mhz: int | None = None
    """Of the graphics clock, now."""
    max_clock_mhz: int | None = None
    mig: bool | None = None
    """Is it divided into instances? Never changed by edgeslim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A Python package that was imported in a process of its own, to see whether it works here."""

    name: str
    version: str | None
    problem: str | None
    """Why it cannot be used, in one line; None if it can."""

    @property
    def usable(self) -> bool:
        """Whether it could be imported."""
        return self.problem is None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRt:
    """One flavour of TensorRT."""

    flavour: Flavour
    module: str
    """The name that Python imports."""
    version: str | None
    path: str | None
    """The folder that Python imports it from."""
    origin: Literal["system", "environment"] | None
    """"system": the distribution's dist-packages, where JetPack puts it. "environment": all else, such as pip's."""
    distribution: str | None = None
    """What pip calls it, where it is pip's."""
    problem: str | None
    """Why it cannot be used, in one line; None if it can."""
    system_copy: str | None = None
    """The distribution's copy, whether or not it is the one that is imported."""

    @property
    def usable(self) -> bool:
        """Whether it could be imported and looks like TensorRT."""
        return self.problem is None

    @property
    def shadows(self) -> bool:
        """Whether it hides the distribution's copy from Python."""
        return self.system_copy is not None and self.origin == "environment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuda:
    """Versions of CUDA, "13.0", and the packages through which Python reaches it."""

    driver: str | None
    """The newest CUDA that the driver speaks."""
    runtime: str | None
    """What cuda-bindings was built with."""
    toolkit: str | None
    """What is installed below /usr/local/cuda."""
    bindings: Library
    pycuda: Library


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What this machine is and what can be used on it. Make it with `describe_device`."""

    architecture: str
    container: bool
    """Whether a container's marks were seen."""
    jetson: Jetson | None
    """None: not a Jetson."""
    gpus: tuple[Gpu, ...] | None
    """In the order in which CUDA numbers them for this process, where cuda-bindings is there; else in NVML's order,
    which knows nothing of CUDA_VISIBLE_DEVICES. (): a driver was asked, and has none. None: no driver to ask."""
    nvidia_hardware: bool | None
    """Whether the kernel sees a GPU of NVIDIA's, with or without a driver."""
    driver: str | None
    """Version of NVIDIA's driver, "580.95.05"."""
    cuda: Cuda
    tensorrt: tuple[TensorRt, ...]
    """One entry a flavour, there or not."""
    onnxruntime: Library
    onnxruntime_providers: tuple[str, ...] | None
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Name of a field that is None ("jetson.dla_cores") -> why, and what documents say instead."""

    @property
    def has_gpu(self) -> bool:
        """Whether engines can run here as far as hardware and driver go."""
        return bool(self.gpus) or (self.jetson is not None and self.gpus is None)

    @property
    def gpu_name(self) -> str | None:
        """The first GPU's name; on a Jetson whose driver names none, its chip's family."""
        if self.gpus:
            return self.gpus[0].name
        return self.jetson.family if self.jetson is not None else None

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        """The first GPU's, as the driver says; on a Jetson without that, by its chip."""
        if self.gpus and self.gpus[0].compute_capability is not None:
            return self.gpus[0].compute_capability
        return self.jetson.compute_capability if self.jetson is not None else None

    @property
    def unified_memory(self) -> bool | None:
        """Whether GPU and processor share their memory: then frames need no copy."""
        if self.jetson is not None:
            return True
        if not self.gpus:
            return None
        if self.gpus[0].integrated is None:
            return False if self.architecture in ("x86_64", "AMD64") else None
        return self.gpus[0].integrated

    def find_tensorrt(self, flavour: Flavour) -> TensorRt | None:
        """The usable TensorRT of a flavour."""
        return next((found for found in self.tensorrt if found.flavour == flavour and found.usable), None)
