"""Measure the latency and memory of bundles, and compare them."""

from .measure import ReportProgress, check_threads, measure
from .result import (
    ArenaUse,
    BenchResult,
    Latency,
    Machine,
    MemoryUse,
    Settings,
    Side,
    Speedup,
    WarmUp,
    latency_from_samples,
    percentile,
)

__all__ = [
    "ArenaUse",
    "BenchResult",
    "Latency",
    "Machine",
    "MemoryUse",
    "ReportProgress",
    "Settings",
    "Side",
    "Speedup",
    "WarmUp",
    "check_threads",
    "latency_from_samples",
    "measure",
    "percentile",
]
