"""One net's figures in short: what a run's result says of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeslim.runtime.manifest import Manifest

from .result import Side


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyMs:
    """Percentiles of one run on one frame, in milliseconds."""

    p50: float
    p90: float
    p99: float
    spread: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """One net of a run. metrics: on the test images, computed by the bundle itself."""

    metrics: Mapping[str, float]
    parameters: int
    macs: int | None
    file_bytes: int
    latency_ms: LatencyMs
    peak_memory_bytes: int | None
    bundle: str


def net_of(manifest: Manifest, side: Side, bundle: str) -> Net:
    """One net from its manifest and its half of the benchmark."""
    latency = side.latency
    return Net(
        metrics=manifest.metrics,
        parameters=manifest.sizes.parameters,
        macs=manifest.sizes.macs,
        file_bytes=side.memory.file_bytes,
        latency_ms=LatencyMs(
            p50=latency.p50_ms, p90=latency.p90_ms, p99=latency.p99_ms, spread=latency.spread, n=latency.n
        ),
        peak_memory_bytes=side.memory.peak_rss_bytes,
        bundle=bundle,
    )
