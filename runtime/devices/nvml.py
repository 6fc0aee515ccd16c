"""One question to NVML in this process: quick, where `describe_device` with its child processes is not.

For facts that a running program needs beside its work. Who describes the machine asks by `probe.py` instead, whose
process may crash or hang.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def ask_nvml(question: Callable[[ModuleType], T]) -> T | None:
    """What `question` makes of the module `pynvml` while NVML is open; None where NVML does not tell. Never raises."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            return question(pynvml)
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no library, no driver, no permission: NVML's exceptions are generated, and none matters here
        return None
