"""The GPUs: CUDA says which ones this process has and in which order, NVML what they are set to.

Without cuda-bindings NVML's list stands alone, without nvidia-ml-py CUDA's. With neither, the kernel's files still tell
whether there is a driver and whether the hardware is there, so that it can be said what to install.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .ask import ask, is_installed
from .record import Gpu, Library
from .sources import Sources, first_match

_NVIDIA = "0x10de"
_DISPLAY_CLASS = "0x03"


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaAnswer:
    """What `probe.ask_cuda` tells."""

    version: str | None = None
    runtime: str | None = None
    driver: str | None = None
    gpus: tuple[Gpu, ...] | None = None
    driver_problem: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlAnswer:
    """What `probe.ask_nvml` tells."""

    version: str | None = None
    driver_version: str | None = None
    driver: str | None = None
    gpus: tuple[Gpu, ...] | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReport:
    """The GPUs and the driver; see the fields of the same names in `Device` and `Cuda`."""

    gpus: tuple[Gpu, ...] | None
    nvidia_hardware: bool | None
    driver: str | None
    cuda_driver: str | None
    cuda_runtime: str | None
    bindings: Library
    reasons: Mapping[str, str] = field(default_factory=dict)


def read_gpus(sources: Sources) -> GpuReport:
    """The GPUs as the driver describes them. Never raises; takes one process each for NVML and CUDA."""
    nvml = _ask_nvml(sources)
    cuda = _ask_cuda(sources)
    driver = nvml.driver_version or kernel_driver(sources)
    gpus = _merge(cuda.gpus, nvml.gpus)
    reasons = {}
    if gpus is None:
        reasons["gpus"] = f"NVML: {nvml.problem}; CUDA: {cuda.problem or cuda.driver_problem}"
    if driver is None:
        reasons["driver"] = f"/proc/driver/nvidia/version names none; NVML: {nvml.problem}"
    return GpuReport(
        gpus=gpus,
        nvidia_hardware=True if gpus else _has_hardware(sources),
        driver=driver,
        cuda_driver=nvml.driver or cuda.driver,
        cuda_runtime=cuda.runtime,
        bindings=Library(name="cuda-bindings", version=cuda.version, problem=cuda.problem),
        reasons=reasons,
    )


def _ask_nvml(sources: Sources) -> NvmlAnswer:
    if not is_installed("pynvml"):
        return NvmlAnswer(problem="nvidia-ml-py is not installed")
    answer = ask(sources, NvmlAnswer, "nvml")
    return NvmlAnswer(problem=answer) if isinstance(answer, str) else answer


def _ask_cuda(sources: Sources) -> CudaAnswer:
    if not is_installed("cuda"):
        return CudaAnswer(problem="cuda-bindings is not installed")
    answer = ask(sources, CudaAnswer, "cuda")
    return CudaAnswer(problem=answer) if isinstance(answer, str) else answer


def _merge(cuda: tuple[Gpu, ...] | None, nvml: tuple[Gpu, ...] | None) -> tuple[Gpu, ...] | None:
    """CUDA's list, each GPU with what NVML says of the same bus address; or the one list that there is."""
    if cuda is None or nvml is None:
        return nvml if cuda is None else cuda
    settings = {gpu.pci: gpu for gpu in nvml if gpu.pci is not None}
    return tuple(_with_settings(gpu, settings.get(gpu.pci or "")) for gpu in cuda)


def _with_settings(gpu: Gpu, settings: Gpu | None) -> Gpu:
    if settings is None:
        return gpu
    return replace(
        gpu,
        power_limit_mw=settings.power_limit_mw,
        clock_mhz=settings.clock_mhz,
        max_clock_mhz=settings.max_clock_mhz,
        mig=settings.mig,
    )


def kernel_driver(sources: Sources) -> str | None:
    """The driver's version as the kernel tells it, None where it does not.

    From "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  ..."; Jetsons of JetPack 6 have it as well.
    """
    return first_match(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", sources.text("/proc/driver/nvidia/version"))


def _has_hardware(sources: Sources) -> bool | None:
    """A display controller of NVIDIA's on the PCI bus; None where the bus cannot be seen."""
    devices = sources.glob("/sys/bus/pci/devices/*")
    if not devices:
        return None
    return any(
        sources.text(f"{device}/vendor") == _NVIDIA
        and (sources.text(f"{device}/class") or "").startswith(_DISPLAY_CLASS)
        for device in devices
    )
