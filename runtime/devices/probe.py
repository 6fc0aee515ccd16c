"""What a library says, asked in a process of its own: `python probe.py SYS_PATH_AS_JSON QUESTION [ARGUMENT]`.

A library that is broken may crash its process, hang it, or print on its stdout; here it does so where it hurts nobody.
The answer is one JSON object on stdout, which the parent checks against a dataclass. This file runs by its path and
imports nothing of edgeslim, so that a question costs the library's own time and no more.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

Answer: TypeAlias = "dict[str, object]"


def ask_tensorrt(module_name: str, wanted: str = "") -> Answer:
    """Version of a TensorRT; with "dla" also the DLA cores that its builder counts, which takes a GPU."""
    module = importlib.import_module(module_name)
    missing = [name for name in ("__version__", "Builder", "Logger", "Runtime") if not hasattr(module, name)]
    if missing:
        place = getattr(module, "__file__", None) or "a folder without __init__.py"
        return {"problem": f"{place} is not TensorRT: it has no {', '.join(missing)}"}
    answer: Answer = {"version": str(module.__version__)}
    if wanted == "dla":
        try:
            answer["dla_cores"] = int(module.Builder(module.Logger(module.Logger.ERROR)).num_DLA_cores)
        except Exception as error:
            answer["dla_problem"] = one_line(error)
    return answer


def ask_package(distribution: str, module_name: str) -> Answer:
    """Whether a package can be imported, and its version."""
    answer: Answer = {"version": version_of(distribution)}
    try:
        importlib.import_module(module_name)
    except Exception as error:
        answer["problem"] = one_line(error)
    return answer


def ask_onnxruntime() -> Answer:
    """ONNX Runtime's version and providers: those it was built with, which need not all work here."""
    module = importlib.import_module("onnxruntime")
    return {"version": module.__version__, "providers": list(module.get_available_providers())}


def ask_cuda() -> Answer:
    """Versions of CUDA, and the GPUs in the order in which CUDA numbers them for this process."""
    runtime = importlib.import_module("cuda.bindings.runtime")
    answer: Answer = {"version": version_of("cuda-bindings")}
    with contextlib.suppress(Exception):
        answer["runtime"] = dotted(_checked(runtime.cudaRuntimeGetVersion()))
    driver = importlib.import_module("cuda.bindings.driver")
    try:
        answer["driver"] = dotted(_checked(driver.cuDriverGetVersion()))
        _checked(driver.cuInit(0))
        answer["gpus"] = [cuda_gpu(driver, number) for number in range(_checked(driver.cuDeviceGetCount()))]
    except Exception as error:
        answer["driver_problem"] = one_line(error)
    return answer


def cuda_gpu(driver: ModuleType, number: int) -> Answer:
    """One GPU, by the driver's own interface; takes no memory of it."""
    device = _checked(driver.cuDeviceGet(number))

    def attribute(name: str) -> int:
        kind = getattr(driver.CUdevice_attribute, "CU_DEVICE_ATTRIBUTE_" + name)
        return int(_checked(driver.cuDeviceGetAttribute(kind, device)))

    return {
        "name": text_of(_checked(driver.cuDeviceGetName(128, device))),
        "pci": bus_address(text_of(_checked(driver.cuDeviceGetPCIBusId(32, device)))),
        "compute_capability": [attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")],
        "memory_bytes": int(_checked(driver.cuDeviceTotalMem(device))),
        "integrated": bool(attribute("INTEGRATED")),
    }


def ask_nvml() -> Answer:
    """The driver's version and all GPUs of the machine. Reads only."""
    nvml = importlib.import_module("pynvml")
    answer: Answer = {"version": version_of("nvidia-ml-py")}
    nvml.nvmlInit()
    answer["driver_version"] = text_of(nvml.nvmlSystemGetDriverVersion())
    with contextlib.suppress(nvml.NVMLError):
        answer["driver"] = dotted(nvml.nvmlSystemGetCudaDriverVersion_v2())
    gpus = []
    for number in range(nvml.nvmlDeviceGetCount()):
        with contextlib.suppress(nvml.NVMLError):  # one that has fallen off the bus does not hide the others
            gpus.append(nvml_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(number)))
    answer["gpus"] = gpus
    nvml.nvmlShutdown()
    return answer


def nvml_gpu(nvml: ModuleType, handle: object) -> Answer:
    """One GPU by NVML. A GPU need not support every question: what it does not answer is None."""

    def ask(function: str, *arguments: object) -> Any:
        try:
            return getattr(nvml, function)(handle, *arguments)
        except (nvml.NVMLError, AttributeError):
            return None

    capability, mode = ask("nvmlDeviceGetCudaComputeCapability"), ask("nvmlDeviceGetMigMode")
    memory, name, pci = ask("nvmlDeviceGetMemoryInfo"), ask("nvmlDeviceGetName"), ask("nvmlDeviceGetPciInfo")
    return {
        "name": None if name is None else text_of(name),
        "pci": None if pci is None else bus_address(text_of(pci.busId)),
        "compute_capability": None if capability is None else list(capability),
        "memory_bytes": None if memory is None else int(memory.total),
        "integrated": None,
        "power_limit_mw": ask("nvmlDeviceGetEnforcedPowerLimit"),
        "clock_mhz": ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_GRAPHICS),
        "max_clock_mhz": ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_GRAPHICS),
        "mig": None if mode is None else bool(mode[0]),  # (now, after the next reset)
    }


def _checked(returned: tuple[Any, ...]) -> Any:
    """cuda-bindings returns (error, value): the value, or RuntimeError with the error's name."""
    error, *values = returned
    if int(error) != 0:
        raise RuntimeError(getattr(error, "name", str(error)))
    return values[0] if values else None


def dotted(version: int) -> str:
    """CUDA's 13020 -> "13.2"."""
    return f"{version // 1000}.{version % 1000 // 10}"


def text_of(value: object) -> str:
    """Old bindings give bytes, padded with NULs."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.partition("\0")[0]


def bus_address(text: str) -> str:
    """NVML writes the PCI domain with eight digits and CUDA with four: the last four, in small letters."""
    return text.lower()[-12:]


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def one_line(error: BaseException) -> str:
    """An exception in one line: its type and what it says first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


QUESTIONS: dict[str, Callable[..., Answer]] = {
    "tensorrt": ask_tensorrt,
    "package": ask_package,
    "onnxruntime": ask_onnxruntime,
    "cuda": ask_cuda,
    "nvml": ask_nvml,
}


def main(path: str, question: str, *arguments: str) -> None:
    """Answer on stdout, whatever the library prints there."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    sys.path[:] = json.loads(path)
    try:
        answer = QUESTIONS[question](*arguments)
    except Exception as error:
        answer = {"problem": one_line(error)}
    os.write(stdout, json.dumps(answer).encode())
    os._exit(0)  # a driver library may crash when it is unloaded, after all was said


if __name__ == "__main__":
    main(*sys.argv[1:])
