"""Two nets in one process, sample by sample, so that what disturbs the machine disturbs both.

A round takes one sample of each side, and every sample comes right after an untimed run of its own side: else a net
would be timed with its rival's weights in the cache, which no camera program sees. The order never changes. Were it
turned round after every round, the sides at its ends would run four times on end there, and the third and fourth run
of a small net were seen to be 2 % faster than its second: those in the middle would look slower than they are.

The speed-up is median(A) / median(B). Its interval is a bootstrap over *rounds*: both sides are resampled with
the same rounds, so a drift that both share cancels. Disturbances last longer than a round, so rounds are drawn
in circular blocks of about n^(1/3) neighbours. Source: Künsch 1989; Politis & Romano 1992.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .clock import NS_PER_S, Call, now_ns, time_ns, undisturbed
from .result import Speedup, percentile_index

MIN_SAMPLES = 20
CONFIDENCE = 0.95
RESAMPLES = 2000


def interleave(
    calls: Sequence[Call],
    *,
    samples: int,
    seconds: float,
    fewest: int = MIN_SAMPLES,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[tuple[int, ...], ...]:
    """Take `samples` rounds, fewer (but `fewest`) when `seconds` of wall time are over.

    Returns one tuple of nanoseconds a side, paired by round. `progress(done, samples)` is called between rounds.
    """
    taken: tuple[list[int], ...] = tuple([] for _ in calls)
    with undisturbed():
        start = now_ns()
        for number in range(samples):
            if number >= fewest and now_ns() - start >= seconds * NS_PER_S:
                break
            for call, own in zip(calls, taken):
                if number == 0 or len(calls) > 1:
                    call()
                own.append(time_ns(call))
            if progress is not None:
                progress(number + 1, samples)
    return tuple(map(tuple, taken))


def speedup(
    against_ns: Sequence[int],
    subject_ns: Sequence[int],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Speedup:
    """Ratio of medians, against / subject, with its interval. The samples are paired by round."""
    pair = np.array([against_ns, subject_ns], dtype=np.float64)
    rounds = _circular_blocks(pair.shape[1], resamples, np.random.default_rng(seed))
    ratios = _medians(pair[0][rounds]) / _medians(pair[1][rounds])
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(ratios, [tail, 1.0 - tail])
    return Speedup(
        ratio=float(_medians(pair[0]) / _medians(pair[1])),
        low=float(low),
        high=float(high),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def _circular_blocks(n: int, resamples: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """(resamples, n) indices of rounds: random blocks of neighbours, the last round next to the first."""
    length = max(1, round(n ** (1.0 / 3.0)))
    blocks = -(-n // length)
    starts = generator.integers(0, n, size=(resamples, blocks, 1))
    indices = (starts + np.arange(length)) % n
    return indices.reshape(resamples, blocks * length)[:, :n].astype(np.intp)


def _medians(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 50th percentile along the last axis, as `result.percentile` defines it."""
    index = percentile_index(samples.shape[-1], 50)
    medians: NDArray[np.float64] = np.partition(samples, index, axis=-1)[..., index]
    return medians
