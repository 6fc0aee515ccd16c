"""The one clock of the benchmarks: nanoseconds of wall time around one call.

A collection of Python's cyclic garbage in the middle of a sample is a property of this process, not of the
net, so the collector rests while samples are taken.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns

Call = Callable[[], object]

NS_PER_MS = 1e6
NS_PER_S = 1e9

now_ns = perf_counter_ns


def time_ns(call: Call) -> int:
    """Wall time of one call, in nanoseconds."""
    start = perf_counter_ns()
    call()
    return perf_counter_ns() - start


@contextmanager
def undisturbed() -> Iterator[None]:
    """Collect garbage once, then keep the collector away until the block ends. Within another such block: nothing."""
    if not gc.isenabled():
        yield
        return
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
