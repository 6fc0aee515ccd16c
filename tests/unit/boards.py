"""Trees of files as boards have them. They are written after the forms that the vendor and the kernel document, not
captured from hardware: what a real board does differently, these tests cannot know."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from edgeslim.runtime.devices import Run, Sources
from edgeslim.runtime.devices.sources import run_command

MODEL, COMPATIBLE = "proc/device-tree/model", "proc/device-tree/compatible"
RELEASE, NVPMODEL, DPKG = "etc/nv_tegra_release", "usr/sbin/nvpmodel", "var/lib/dpkg/status"


def release(major: int, revision: str) -> str:
    return f"# R{major} (release), REVISION: {revision}, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Fri\n# more: x\n"


def compatible(chip: str) -> str:
    """Strings that end with a NUL each, as the device tree stores them."""
    return f"nvidia,p0000+p0000\0nvidia,{chip}\0"


def nvpmodel(mode: str) -> str:
    return f"#!/bin/sh\n[ \"$*\" = -q ] || exit 9\necho 'NV Power Mode: {mode}'\necho 0\n"


def package(version: str, status: str = "install ok installed") -> str:
    """An entry of dpkg's status between two others."""
    other = "Package: {}\nStatus: install ok installed\nVersion: 9.9\nDescription: other\n two lines\n\n"
    entry = f"Package: nvidia-jetpack\nStatus: {status}\nPriority: standard\nVersion: {version}\nDescription: all\n\n"
    return other.format("nvidia-jetpack-dev") + entry + other.format("zlib1g")


def jetson(model: str, chip: str, l4t: str | None, mode: str | None) -> dict[str, str]:
    files = {MODEL: model + "\0", COMPATIBLE: compatible(chip)}
    if l4t is not None:
        files[RELEASE] = l4t
    if mode is not None:
        files[NVPMODEL] = nvpmodel(mode)
    return files


BOARDS: Mapping[str, Mapping[str, str]] = {
    "xavier, JetPack 5": jetson("Jetson-AGX", "tegra194", release(35, "4.1"), "MODE_15W"),
    "Orin NX, JetPack 6.0": jetson("NVIDIA Jetson Orin NX Developer Kit", "tegra234", release(36, "3.0"), "25W"),
    "Orin NX, JetPack 6.2": jetson("NVIDIA Jetson Orin NX Developer Kit", "tegra234", release(36, "4.4"), "MAXN_SUPER"),
    "AGX Orin": jetson("NVIDIA Jetson AGX Orin Developer Kit", "tegra234", release(36, "5.0"), "MAXN"),
    "Thor, JetPack 7.0": jetson("NVIDIA Jetson AGX Thor Developer Kit", "tegra264", release(38, "2.0"), "120W"),
    "Thor, JetPack 7.2": jetson("NVIDIA Jetson AGX Thor Developer Kit", "tegra264", release(39, "2.0"), "MAXN"),
    "container on a Jetson": {**jetson("NVIDIA Jetson Orin Nano", "tegra234", None, None), ".dockerenv": ""},
    "PC without a driver": {
        "sys/bus/pci/devices/0000:00:02.0/vendor": "0x8086\n",
        "sys/bus/pci/devices/0000:00:02.0/class": "0x030000\n",
        "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
        "sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
        "sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de\n",
        "sys/bus/pci/devices/0000:01:00.1/class": "0x040300\n",
    },
    "PC without a GPU": {
        "sys/bus/pci/devices/0000:00:03.0/vendor": "0x10de\n",
        "sys/bus/pci/devices/0000:00:03.0/class": "0x0c0330\n",
    },
}


def plant(root: Path, files: Mapping[str, str | bytes], run: Run = run_command) -> Sources:
    """Write a tree; what lies in a `bin` folder or `sbin` can be run."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        if "bin/" in name:
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return Sources(root=root, run=run)


NO_DRIVER = {
    "pynvml.py": (
        "class NVMLError(Exception): pass\n\n"
        "def nvmlInit(): raise NVMLError('this fake has no driver')\n"
    ),
    "cuda/__init__.py": "",
    "cuda/bindings/__init__.py": "",
    "cuda/bindings/runtime.py": "def cudaRuntimeGetVersion(): return (0, 13050)\n",
    "cuda/bindings/driver.py": "def cuDriverGetVersion(): raise RuntimeError('this fake has no driver')\n",
}  # fmt: skip
"""Fakes of nvidia-ml-py and cuda-bindings on a machine without a driver, whatever machine the tests run on."""

TWO_GPUS = {
    "pynvml.py": '''
"""A fake of NVML with two GPUs; the second one refuses what old GPUs refuse."""
from types import SimpleNamespace

NVML_CLOCK_GRAPHICS = 0
class NVMLError(Exception): pass
def nvmlInit(): print("libraries talk on stdout")
def nvmlShutdown(): pass
def nvmlSystemGetDriverVersion(): return b"580.95.05"
def nvmlSystemGetCudaDriverVersion_v2(): return 13000
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(number): return number
def nvmlDeviceGetName(handle): return (b"NVIDIA RTX 4090", "NVIDIA T400")[handle]
def nvmlDeviceGetPciInfo(handle): return SimpleNamespace(busId=f"0000000{handle}:0A:00.0".encode())
def nvmlDeviceGetCudaComputeCapability(handle): return ((8, 9), (7, 5))[handle]
def nvmlDeviceGetMemoryInfo(handle): return SimpleNamespace(total=(24 << 30, 4 << 30)[handle])
def nvmlDeviceGetClockInfo(handle, kind): return (210, 300)[handle]
def nvmlDeviceGetEnforcedPowerLimit(handle):
    if handle: raise NVMLError("Not Supported")
    return 450000
def nvmlDeviceGetMigMode(handle):
    if handle: raise NVMLError("Not Supported")
    return [0, 1]
''',
    "cuda/__init__.py": "",
    "cuda/bindings/__init__.py": "",
    "cuda/bindings/runtime.py": "def cudaRuntimeGetVersion(): return (0, 13020)\n",
    "cuda/bindings/driver.py": '''
"""A fake of CUDA's driver, which is told to count the GPUs the other way round."""
from enum import IntEnum

class CUdevice_attribute(IntEnum):
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76
    CU_DEVICE_ATTRIBUTE_INTEGRATED = 18

def cuInit(flags): return (0,)
def cuDriverGetVersion(): return (0, 13010)
def cuDeviceGetCount(): return (0, 2)
def cuDeviceGet(number): return (0, number)
def cuDeviceGetName(length, device): return (0, (b"NVIDIA T400", b"NVIDIA RTX 4090")[device] + bytes(8))
def cuDeviceGetPCIBusId(length, device): return (0, f"000{1 - device}:0A:00.0".encode() + bytes(4))
def cuDeviceTotalMem(device): return (0, (4 << 30, 24 << 30)[device])
def cuDeviceGetAttribute(kind, device): return (0, {75: (7, 8), 76: (5, 9), 18: (0, 0)}[int(kind)][device])
''',
}
"""Fakes of the same two packages where there are two GPUs."""

TENSORRT = '''
"""A fake of TensorRT: what edgeslim asks of it, and no more."""
__version__ = "{version}"
class Runtime: pass
class Logger:
    ERROR = 1
    def __init__(self, severity): pass
class Builder:
    num_DLA_cores = {dla_cores}
    def __init__(self, logger): pass
'''
