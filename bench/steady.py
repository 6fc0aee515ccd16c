"""Warm-up: run until the latency stops changing, and say whether it did.

Calls are grouped into windows of at least `WINDOW_CALLS` calls and `WINDOW_SECONDS`, so that a window of a
tiny net is long enough for a clock governor to react. The net is steady when the medians of the last three
windows lie within `TOLERANCE` of the smallest of them. A machine that is disturbed may never get there; the
warm-up then ends at its time limit and the result says `settled: false`.
"""

from __future__ import annotations

from statistics import median

from .clock import NS_PER_S, Call, now_ns, time_ns
from .result import WarmUp

WINDOW_CALLS = 3
WINDOW_SECONDS = 0.06
WINDOWS = 3
TOLERANCE = 0.03


def warm_up(call: Call, *, seconds: float) -> WarmUp:
    """Call until steady, or for `seconds` of wall time (but at least one window)."""
    medians: list[float] = []
    calls, start = 0, now_ns()
    while True:
        window = _window(call)
        calls += len(window)
        medians.append(median(window))
        settled = is_steady(medians)
        elapsed = (now_ns() - start) / NS_PER_S
        if settled or elapsed >= seconds:
            return WarmUp(calls=calls, seconds=elapsed, settled=settled, tolerance=TOLERANCE)


def is_steady(medians: list[float]) -> bool:
    """True when the last `WINDOWS` medians lie within `TOLERANCE` of the smallest of them."""
    last = medians[-WINDOWS:]
    return len(last) == WINDOWS and max(last) <= min(last) * (1.0 + TOLERANCE)


def _window(call: Call) -> list[int]:
    samples: list[int] = []
    while len(samples) < WINDOW_CALLS or sum(samples) < WINDOW_SECONDS * NS_PER_S:
        samples.append(time_ns(call))
    return samples
