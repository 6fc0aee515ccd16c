"""The result of a run as data: what `compress --json` prints and `result.json` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeslim.bench.result import Side, Speedup
from edgeslim.runtime.certificate import Certificate
from edgeslim.runtime.manifest import LayerCoverage, Manifest
from edgeslim.runtime.variants import Variant
from edgeslim.schema import dumps

SCHEMA = 2
"""2: `precisions`."""


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
    """One of the two nets. metrics: on the test images, computed by the bundle itself."""

    metrics: Mapping[str, float]
    parameters: int
    macs: int | None
    file_bytes: int
    latency_ms: LatencyMs
    peak_memory_bytes: int | None
    bundle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run produced.

    precisions: of the compact net, beside fp32.  stages: training stage -> scores on the validation images.
    """

    schema: int = SCHEMA
    name: str
    dense: Net
    compact: Net
    speedup: Speedup | None
    certificate: Certificate
    coverage: tuple[LayerCoverage, ...]
    coverage_summary: str
    precisions: tuple[Variant, ...]
    bundle: str
    report: str
    stages: Mapping[str, Mapping[str, float]]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """The outcome as text."""
        return dumps(self)


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
