"""What a latency depends on beside the net: the device, and what runs on it.

Two machines with one fingerprint are taken to be equally fast. A changed clock, driver or backend is another device.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from dataclasses import dataclass

from edgeslim.runtime.devices import Gpu, Sources, first_match, read_board, read_gpus, read_jetson
from edgeslim.schema import to_json

from ..machine import cpu_model, usable_cores

_KERNELS = re.compile(r"^(avx\w*|fma|f16c|sse4_[12]|amx\w*|neon|asimd\w*|sve\w*|i8mm|bf16)$")
"""The CPU flags by which kernels are chosen; the others say nothing about speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """None: the device does not tell, or has none."""

    backend: str
    """Its name in `edgeslim.runtime.backends`."""
    backend_version: str
    threads: int
    architecture: str
    cpu: str | None
    cpu_flags: tuple[str, ...]
    usable_cores: int | None
    governor: str | None
    max_clock_mhz: float | None
    """Of the CPU; on a GPU's backend, of the GPU."""
    board: str | None = None
    power_mode: str | None = None
    gpu: str | None = None
    compute_capability: str | None = None
    driver: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, as hexadecimal digits."""
        text = json.dumps(to_json(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def short(self) -> str:
        """The first twelve digits, by which a person names the device."""
        return self.digest[:12]

    def __str__(self) -> str:
        chip = self.gpu or self.board or self.cpu or self.architecture
        many = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{chip}, {self.backend} {self.backend_version}, {many}"


def fingerprint_here(backend: str, version: str, threads: int, sources: Sources | None = None) -> Fingerprint:
    """The fingerprint of this machine. Never raises: what cannot be read is None."""
    sources = sources or Sources()
    info = sources.text("/proc/cpuinfo")
    flags = first_match(r"^(?:flags|Features)\s*:\s*(.+)$", info) or ""
    cores = usable_cores()
    clock = f"/sys/devices/system/cpu/cpu{cores[0] if cores else 0}/cpufreq"
    kilohertz = sources.text(f"{clock}/scaling_max_freq")
    jetson, on_gpu = read_jetson(sources), backend != "onnxruntime"
    gpus = read_gpus(sources) if on_gpu else None
    gpu = gpus.gpus[0] if gpus is not None and gpus.gpus else None
    capability = None if gpu is None else gpu.compute_capability
    return Fingerprint(
        backend=backend,
        backend_version=version,
        threads=threads,
        architecture=platform.machine(),
        cpu=cpu_model(sources),
        cpu_flags=tuple(sorted(flag for flag in flags.split() if _KERNELS.match(flag))),
        usable_cores=len(cores) or None,
        governor=sources.text(f"{clock}/scaling_governor"),
        max_clock_mhz=_max_clock_mhz(kilohertz, gpu),
        board=read_board(sources),
        power_mode=None if jetson is None else jetson.power_mode,
        gpu=None if gpu is None else gpu.name,
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        driver=gpus.driver if gpus is not None else None,
    )


def _max_clock_mhz(kilohertz: str | None, gpu: Gpu | None) -> float | None:
    """kilohertz: what the kernel says of the CPU."""
    if gpu is not None:
        return None if gpu.max_clock_mhz is None else float(gpu.max_clock_mhz)
    return int(kilohertz) / 1000.0 if kilohertz and kilohertz.isdigit() else None
