"""One description of the device that engines are built, cached and measured on."""

from __future__ import annotations

import platform
from dataclasses import replace

from .gpus import GpuReport, read_gpus
from .jetson import capability_under, in_container, read_jetson
from .libraries import TensorRtAnswer, read_onnxruntime, read_pycuda, read_tensorrt
from .record import Cuda, Device, Jetson
from .sources import Sources, first_match


def describe_device(sources: Sources | None = None) -> Device:
    """The device as it is now, from the kernel's files, the driver and the libraries themselves.

    Never raises: what cannot be known is None, with the reason in `Device.reasons`. Libraries are asked in processes
    of their own, which takes about a second, and more where one hangs: keep the result.
    """
    sources = sources or Sources()
    reasons: dict[str, str] = {}
    jetson = read_jetson(sources, reasons=reasons)
    gpus = read_gpus(sources)
    full, answer = read_tensorrt(sources, "tensorrt", count_dla=jetson is not None)
    rtx, _ = read_tensorrt(sources, "tensorrt-rtx")
    if jetson is not None:
        jetson = _complete(jetson, gpus, answer, reasons)
    onnxruntime, providers = read_onnxruntime(sources)
    return Device(
        architecture=platform.machine(),
        container=in_container(sources),
        jetson=jetson,
        gpus=gpus.gpus,
        nvidia_hardware=True if jetson is not None else gpus.nvidia_hardware,
        driver=gpus.driver,
        cuda=Cuda(
            driver=gpus.cuda_driver,
            runtime=gpus.cuda_runtime,
            toolkit=_toolkit(sources),
            bindings=gpus.bindings,
            pycuda=read_pycuda(sources),
        ),
        tensorrt=(full, rtx),
        onnxruntime=onnxruntime,
        onnxruntime_providers=providers,
        reasons={**reasons, **gpus.reasons},
    )


def _complete(jetson: Jetson, gpus: GpuReport, answer: TensorRtAnswer, reasons: dict[str, str]) -> Jetson:
    """The board with what only TensorRT and the driver know of it."""
    if answer.dla_cores is not None:
        reasons.pop("jetson.dla_cores", None)
    elif answer.dla_problem is not None:
        reasons["jetson.dla_cores"] += f" ({answer.dla_problem})"
    capability = capability_under(jetson.family, gpus.cuda_driver)
    return replace(jetson, dla_cores=answer.dla_cores, compute_capability=capability)


def _toolkit(sources: Sources) -> str | None:
    """From /usr/local/cuda/version.json, {"cuda": {"name": "CUDA SDK", "version": "12.6.68"}, ...}."""
    return first_match(r'"cuda"\s*:\s*\{[^{}]*"version"\s*:\s*"([\d.]+)"', sources.text("/usr/local/cuda/version.json"))
