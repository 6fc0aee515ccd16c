"""What this machine says about itself, read from the kernel's text files; what it does not say is None."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .result import Machine

_PACKAGES = ("edgeslim", "numpy", "onnxruntime")


def describe_machine() -> Machine:
    """The machine as it is now. Never raises: a file that cannot be read is a None."""
    cores = _usable_cores()
    clock = f"/sys/devices/system/cpu/cpu{cores[0] if cores else 0}/cpufreq"
    return Machine(
        board=_read("/proc/device-tree/model"),
        cpu=_cpu_model(),
        architecture=platform.machine(),
        logical_cores=os.cpu_count(),
        usable_cores=len(cores) or None,
        cpu_quota=_cpu_quota(),
        frequency_mhz=_frequency_mhz(clock),
        governor=_read(f"{clock}/scaling_governor"),
        load_1min=load_average(),
        memory_bytes=_memory_bytes(),
        os=_os(),
        python=platform.python_version(),
        versions=_versions(),
    )


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip("\0 \t\n") or None
    except OSError:
        return None


def _first(pattern: str, text: str | None) -> str | None:
    found = re.search(pattern, text or "", re.MULTILINE)
    return found.group(1).strip() if found else None


def _usable_cores() -> list[int]:
    try:
        return sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return []


def _cpu_model() -> str | None:
    text = _read("/proc/cpuinfo")
    return _first(r"^model name\s*:\s*(.+)$", text) or _first(r"^Hardware\s*:\s*(.+)$", text)


def _cpu_quota() -> float | None:
    """Control groups v2: "max 100000" or "150000 100000" (microseconds of time, of a period)."""
    quota, _, period = (_read("/sys/fs/cgroup/cpu.max") or "max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _frequency_mhz(clock: str) -> float | None:
    kilohertz = _read(f"{clock}/scaling_cur_freq")
    if kilohertz and kilohertz.isdigit():
        return int(kilohertz) / 1000.0
    megahertz = _first(r"^cpu MHz\s*:\s*([\d.]+)$", _read("/proc/cpuinfo"))
    return float(megahertz) if megahertz else None


def load_average() -> float | None:
    """How many processes were running or waiting to, over the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _memory_bytes() -> int | None:
    kilobytes = _first(r"^MemTotal:\s*(\d+) kB$", _read("/proc/meminfo"))
    return int(kilobytes) * 1024 if kilobytes else None


def _os() -> str:
    name = _first(r'^PRETTY_NAME="?([^"\n]+)"?$', _read("/etc/os-release"))
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
