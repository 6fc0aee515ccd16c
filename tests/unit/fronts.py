"""Fronts of made-up figures."""

from __future__ import annotations

from collections.abc import Mapping

from edgeslim.bench import LatencyMs, Net, Speedup
from edgeslim.bench.front import Front, FrontPoint, decided

DENSE_MS = 40.0


def point(
    name: str, share: float, score: float, speed: tuple[float, float, float] | None, **more: object
) -> FrontPoint:
    """speed: ratio, low, high; None for the dense net."""
    ratio = 1.0 if speed is None else speed[0]
    median = DENSE_MS / ratio
    values: Mapping[str, object] = {
        "name": name,
        "share": share,
        "validation": {"dice": score, "auc": 0.9},
        "net": Net(
            metrics={"dice": score - 0.01},
            parameters=round(400_000 * (1 - share / 2)),
            macs=round(3e9 * (1 - share / 2)),
            file_bytes=round(1.6e6 * (1 - share / 2)),
            latency_ms=LatencyMs(p50=median, p90=1.1 * median, p99=1.2 * median, spread=0.01, n=100),
            peak_memory_bytes=None,
            bundle=f"run/front/{name}/compact.bundle",
        ),
        "speedup": None
        if speed is None
        else Speedup(ratio=ratio, low=speed[1], high=speed[2], confidence=0.95, resamples=2000, seed=0),
        "dominated_by": None,
        "same_plan": (),
        "report": None if speed is None else f"run/front/{name}/report.html",
    }
    return FrontPoint(**{**values, **more})  # type: ignore[arg-type]


def front(*points: FrontPoint) -> Front:
    """With the three points below where none are given: the middle one is beaten by the last."""
    dense = point("dense", 0.0, 0.80, None)
    given = points or (
        point("macs-0.64", 1 / 3, 0.81, (1.5, 1.45, 1.55)),
        point("macs-0.41", 2 / 3, 0.78, (2.2, 2.1, 2.3)),
        point("macs-0.26", 1.0, 0.79, (3.4, 3.2, 3.6), same_plan=("macs-0.3",)),
    )
    first, *others = decided((dense, *given), "dice")
    return Front(
        name="planted",
        metric="dice",
        dense=first,
        points=tuple(others),
        report="run/report.html",
        notes=("2/3 macs-0.41: planted",),
    )
