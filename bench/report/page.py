"""What all pages of the reports share: how a template becomes one file, and the machine in words."""

from __future__ import annotations

import jinja2

from ..result import Machine, Settings, Speedup
from .numbers import BYTES, count, quantity

UNKNOWN = "not reported"


def template(name: str) -> jinja2.Template:
    """A template of this folder. What goes into it is escaped unless it is Markup."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        loader=jinja2.PackageLoader(__package__ or "edgeslim.bench.report", ""),
    )
    return environment.get_template(name)


def machine_facts(machine: Machine) -> list[tuple[str, str]]:
    """The machine; what it does not tell is said to be unknown."""
    cores = f"{machine.usable_cores or UNKNOWN} usable of {machine.logical_cores or UNKNOWN}"
    quota = "no limit" if machine.cpu_quota is None else f"{machine.cpu_quota:g} cores' worth of time"
    frequency, load = machine.frequency_mhz, machine.load_1min
    return [
        ("Board", machine.board or UNKNOWN),
        ("Processor", f"{machine.cpu or UNKNOWN} ({machine.architecture})"),
        ("Cores", cores),
        ("CPU quota", quota),
        ("Clock after the samples", UNKNOWN if frequency is None else f"{frequency:,.0f} MHz"),
        ("Governor", machine.governor or UNKNOWN),
        ("Load average before", UNKNOWN if load is None else f"{load:.2f}"),
        ("Memory", UNKNOWN if machine.memory_bytes is None else quantity(machine.memory_bytes, BYTES)),
        ("System", machine.os),
        ("Python", machine.python),
        *_accelerator(machine),
        *((name, version) for name, version in machine.versions.items()),
    ]


def _accelerator(machine: Machine) -> list[tuple[str, str]]:
    """GPU and Jetson; a machine without them, or a result from before they were written down, has no such row."""
    rows = [
        ("GPU", machine.gpu),
        ("NVIDIA driver", machine.driver),
        ("Power mode", machine.power_mode),
        ("L4T", machine.l4t),
        ("JetPack", machine.jetpack),
    ]
    return [(label, value) for label, value in rows if value is not None]


def settings_facts(settings: Settings, speed: Speedup | None) -> list[tuple[str, str]]:
    """How it was measured."""
    height, width = settings.frame_size
    rows = [
        ("Backend", settings.backend),
        ("Threads", f"{settings.threads}, {'spinning' if settings.spin else 'not spinning'}"),
        ("Frame", f"{height}×{width} pixels, uniform random, seed {settings.seed}"),
        ("Samples", f"{count(settings.samples)} a side at most, within {settings.seconds:g} s"),
        ("Order", settings.order),
    ]
    if speed is not None:
        interval = f"{100 * speed.confidence:g} %, {speed.resamples:,} bootstrap resamples, seed {speed.seed}"
        rows.append(("Interval", interval))
    return rows
