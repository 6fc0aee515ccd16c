"""What this machine says about itself, read from the kernel's text files; what it does not say is None."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from edgeslim.runtime.devices import Sources, first_match, read_board, read_gpus, read_jetson

from .result import Machine

_PACKAGES = ("edgeslim", "numpy", "onnxruntime")


def describe_machine(sources: Sources | None = None) -> Machine:
    """The machine as it is now. Never raises: a file that cannot be read is a None."""
    sources = sources or Sources()
    cores = usable_cores()
    clock = f"/sys/devices/system/cpu/cpu{cores[0] if cores else 0}/cpufreq"
    frequency_mhz = _frequency_mhz(sources, clock)  # first, for what follows is work
    jetson, gpus = read_jetson(sources), read_gpus(sources)
    return Machine(
        board=read_board(sources),
        cpu=cpu_model(sources),
        architecture=platform.machine(),
        logical_cores=os.cpu_count(),
        usable_cores=len(cores) or None,
        cpu_quota=_cpu_quota(sources),
        frequency_mhz=frequency_mhz,
        governor=sources.text(f"{clock}/scaling_governor"),
        load_1min=load_average(),
        memory_bytes=_memory_bytes(sources),
        os=_os(sources),
        python=platform.python_version(),
        versions=_versions(),
        gpu=gpus.gpus[0].name if gpus.gpus else None,
        driver=gpus.driver,
        power_mode=jetson.power_mode if jetson is not None else None,
        l4t=jetson.l4t if jetson is not None else None,
        jetpack=jetson.jetpack if jetson is not None else None,
    )


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may run on; none where the system does not tell."""
    try:
        return sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return []


def cpu_model(sources: Sources) -> str | None:
    """The name of the processor."""
    text = sources.text("/proc/cpuinfo")
    return first_match(r"^model name\s*:\s*(.+)$", text) or first_match(r"^Hardware\s*:\s*(.+)$", text)


def _cpu_quota(sources: Sources) -> float | None:
    """Control groups v2: "max 100000" or "150000 100000" (microseconds of time, of a period)."""
    quota, _, period = (sources.text("/sys/fs/cgroup/cpu.max") or "max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _frequency_mhz(sources: Sources, clock: str) -> float | None:
    kilohertz = sources.text(f"{clock}/scaling_cur_freq")
    if kilohertz and kilohertz.isdigit():
        return int(kilohertz) / 1000.0
    megahertz = first_match(r"^cpu MHz\s*:\s*([\d.]+)$", sources.text("/proc/cpuinfo"))
    return float(megahertz) if megahertz else None


def load_average() -> float | None:
    """How many processes were running or waiting to, over the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _memory_bytes(sources: Sources) -> int | None:
    kilobytes = first_match(r"^MemTotal:\s*(\d+) kB$", sources.text("/proc/meminfo"))
    return int(kilobytes) * 1024 if kilobytes else None


def _os(sources: Sources) -> str:
    name = first_match(r'^PRETTY_NAME="?([^"\n]+)"?$', sources.text("/etc/os-release"))
    kernel = f"{platform.system()} {platform.release()}"
    return f"{name}, {kernel}" if name else kernel


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
