"""What this device is, what can be used on it, and what is missing. Imports no engine and no driver library itself."""

from .abilities import Ability, engine_abilities, warnings_about
from .describe import describe_device
from .gpus import GpuReport, kernel_driver, read_gpus
from .jetpack import JETPACKS, JetPackRelease, jetpack_of
from .jetson import read_board, read_jetson
from .record import Cuda, Device, Flavour, Gpu, Jetson, Library, TensorRt
from .sources import Ran, Run, Sources, first_match

__all__ = [
    "JETPACKS",
    "Ability",
    "Cuda",
    "Device",
    "Flavour",
    "Gpu",
    "GpuReport",
    "JetPackRelease",
    "Jetson",
    "Library",
    "Ran",
    "Run",
    "Sources",
    "TensorRt",
    "describe_device",
    "engine_abilities",
    "first_match",
    "jetpack_of",
    "kernel_driver",
    "read_board",
    "read_gpus",
    "read_jetson",
    "warnings_about",
]
