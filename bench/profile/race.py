"""Graphs against each other on the device, sample by sample: what decides over a plan is always measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgeslim.errors import DeviceError
from edgeslim.runtime.backends import Array
from edgeslim.runtime.backends.onnxruntime import OnnxRuntimeBackend

from ..clock import NS_PER_MS
from ..compare import interleave, speedup
from ..result import Speedup, percentile

ROUNDS = 400
FEWEST_ROUNDS = 10
WIDE = 0.05
"""Half the width of a ratio's interval, as a share, above which more is measured."""
MOST_WIDE = 0.15
"""And above which nothing can be decided by it."""
SLOWER = 1.3
"""Times the first graph's usual latency, above which other programs, or heat, have a say in the ratios."""
_ATTEMPTS = 3
_WARM_RUNS = 2
_PAUSE_SECONDS = 1.0
_LONG_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One graph of a race. against_first: how much faster it is than the first, with the interval of that."""

    latency_ms: float
    against_first: Speedup


def race(
    graphs: Sequence[bytes],
    feeds: Mapping[str, Array],
    *,
    threads: int = 1,
    seconds: float = 3.0,
) -> tuple[Timed, ...]:
    """Run all graphs in turns on the same inputs, by ONNX Runtime on the CPU, and again where samples do not settle.

    Half of the rounds are run in sessions that are opened the other way round: of two sessions of one graph the one
    that was opened first was seen to be 1 % slower, by where its memory lies.

    seconds: of one attempt, about; never fewer than FEWEST_ROUNDS. Raises DeviceError with the spread where the ratio
    of two graphs remains uncertain by more than MOST_WIDE.
    """
    taken: tuple[tuple[int, ...], ...] = tuple(() for _ in graphs)
    wide = np.inf
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _PAUSE_SECONDS)  # what disturbs the machine may pass
        for turned in (False, True):
            more = _rounds(graphs, feeds, threads, seconds / 2, turned)
            taken = tuple(old + new for old, new in zip(taken, more))
        ratios = [speedup(taken[0], own) for own in taken]
        wide = max((ratio.high - ratio.low) / 2 / ratio.ratio for ratio in ratios)
        if wide <= WIDE:
            break
    if wide > MOST_WIDE:
        raise DeviceError(
            f"measurements do not settle: after {len(taken[0])} rounds a ratio of two latencies is uncertain by "
            f"{wide:.0%}; up to {MOST_WIDE:.0%} can be decided by",
            "stop other programs on the device, let it cool down, and try again",
        )
    return tuple(
        Timed(latency_ms=percentile(own, 50) / NS_PER_MS, against_first=ratio) for own, ratio in zip(taken, ratios)
    )


def at_usual_speed(run: Callable[[], tuple[Timed, ...]], usual_ms: float) -> tuple[Timed, ...]:
    """A race in which the first graph takes about as long as it usually does, after pauses if need be.

    On a machine that was busy with others a ratio was seen to be off by a seventh, steady as it was. Raises DeviceError
    where the first graph stays slow.
    """
    slowest = 0.0
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _LONG_PAUSE_SECONDS)
        timed = run()
        if timed[0].latency_ms <= SLOWER * usual_ms:
            return timed
        slowest = max(slowest, timed[0].latency_ms)
    raise DeviceError(
        f"the dense net takes {slowest:.3g} ms now, and {usual_ms:.3g} ms when the device was measured: it throttles, "
        f"or other programs run on it; up to {SLOWER:g} times can be decided by",
        "stop other programs on the device, let it cool down, and try again; if it is always so, measure a new profile",
    )


def _rounds(
    graphs: Sequence[bytes], feeds: Mapping[str, Array], threads: int, seconds: float, turned: bool
) -> tuple[tuple[int, ...], ...]:
    """Samples of each graph in ns. turned: the last is the first to be opened."""
    with ExitStack() as stack:
        opened = {}
        for number in sorted(range(len(graphs)), reverse=turned):
            opened[number] = stack.enter_context(OnnxRuntimeBackend(graphs[number], threads=threads))
        calls = [partial(opened[number].run, dict(feeds)) for number in range(len(graphs))]
        for call in calls:
            for _ in range(_WARM_RUNS):
                call()
        return interleave(calls, samples=ROUNDS // 2, seconds=seconds, fewest=FEWEST_ROUNDS // 2)
