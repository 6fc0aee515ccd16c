"""Measure the latency and memory of bundles, and compare them."""

from .measure import ReportProgress, check_threads, measure, measure_each
from .net import LatencyMs, Net, net_of
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
    "LatencyMs",
    "Machine",
    "MemoryUse",
    "Net",
    "ReportProgress",
    "Settings",
    "Side",
    "Speedup",
    "WarmUp",
    "check_threads",
    "latency_from_samples",
    "measure",
    "measure_each",
    "net_of",
    "percentile",
]
