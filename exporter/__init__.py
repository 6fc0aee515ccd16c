"""Removes channels for good, proves that nothing changed, writes the bundle, and builds engines from it.

Torch is known to `trace`, with its `translations`, and to `shrink` alone: they are imported when a module is at hand.
Each name loads what it needs on first use, for the engine builder runs on devices that have no ONNX tools.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .certificate import Tolerance
    from .channels import ChannelMap, Coverage, analyze
    from .plan import PruningPlan

__all__ = ["ChannelMap", "Coverage", "PruningPlan", "Tolerance", "analyze"]

_HOME = {
    "ChannelMap": "channels",
    "Coverage": "channels",
    "PruningPlan": "plan",
    "Tolerance": "certificate",
    "analyze": "channels",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'edgeslim.exporter' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
