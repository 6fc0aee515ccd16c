"""Where to cut a range: values beyond the threshold are clipped, the others are rounded more finely for it.

    minmax      the largest absolute value
    percentile  as many absolute values as asked for lie below it
    mse         min_t  sum_x (x - q_t(x))^2
    entropy     min_t  KL(P_t || Q_t),  P_t: the histogram up to t, what lies beyond added to its last bin,
                Q_t: the same without that, in `levels` steps (Migacz 2017)

All four look at one histogram of absolute values. onnxruntime.quantization has the first three quarters of this, but
not in a form to rely on: its collectors ignore NaN, its entropy method has as many bins as levels by default, so that
the only threshold it compares is the largest value, and counts a step's share of each bin in whole numbers.
Zeros are left out of the last two: every threshold represents them exactly, and after a ReLU they are the majority.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .histograms import Histogram
from .options import Int8Options

_CANDIDATES = 256
_FEWEST_STEPS = 128
"""Levels of the entropy method, as TensorRT's calibrator has them: with more, nearly nothing is ever cut."""


def minmax(histogram: Histogram, levels: int, options: Int8Options) -> float:
    """See the module docstring, and so for the other three. levels: of absolute values above 0."""
    return histogram.largest


def percentile(histogram: Histogram, levels: int, options: Int8Options) -> float:
    """The upper end of the bin in which the share is reached."""
    total = histogram.counts.sum()
    reached = np.searchsorted(np.cumsum(histogram.counts), options.percentile / 100 * total)
    return min(histogram.largest, (int(reached) + 1) * histogram.width)


def mse(histogram: Histogram, levels: int, options: Int8Options) -> float:
    """The best of evenly spaced candidates from a tenth of the largest value to all of it."""
    counts, middle = _without_zeros(histogram)
    candidates = np.linspace(0.1, 1.0, _CANDIDATES) * histogram.largest
    errors = []
    for threshold in candidates:
        step = threshold / levels
        rounded = np.minimum(np.rint(middle / step), levels) * step
        errors.append(float(counts @ np.square(middle - rounded)))
    return float(candidates[int(np.argmin(errors))])


def entropy(histogram: Histogram, levels: int, options: Int8Options) -> float:
    """The best of candidates that are bin edges, from `_FEWEST_STEPS` bins to all of them."""
    counts, _ = _without_zeros(histogram)
    bins = len(counts)
    best, found = np.inf, bins
    for end in range(_FEWEST_STEPS, bins + 1, max(1, bins // _CANDIDATES)):
        divergence = _divergence(counts, end, _FEWEST_STEPS)
        if divergence <= best:
            best, found = divergence, end
    return found * histogram.width


def _divergence(counts: NDArray[np.float64], end: int, steps: int) -> float:
    inside = counts[:end]
    wanted = inside.copy()
    wanted[-1] += counts[end:].sum()
    starts = np.arange(steps) * end // steps
    filled = (inside > 0).astype(np.float64)
    sums, shares = np.add.reduceat(inside, starts), np.add.reduceat(filled, starts)
    lengths = np.diff(np.append(starts, end))
    spread = np.repeat(np.divide(sums, shares, out=np.zeros(steps), where=shares > 0), lengths) * filled
    if not spread.sum() or not wanted.sum():
        return np.inf
    p, q = wanted / wanted.sum(), spread / spread.sum()
    seen = p > 0
    # A bin that only what was cut off lies in has no share in Q: count it as one in a million, not as impossible.
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-6))))


def _without_zeros(histogram: Histogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts and middles of the bins, the first one, where the zeros are, as full as the second."""
    counts = histogram.counts.astype(np.float64)
    counts[0] = min(counts[0], counts[1])
    return counts, (np.arange(len(counts), dtype=np.float64) + 0.5) * np.float64(histogram.width)


Method = Callable[[Histogram, int, Int8Options], float]
BY_NAME: dict[str, Method] = {"minmax": minmax, "entropy": entropy, "percentile": percentile, "mse": mse}


def cut_range(histogram: Histogram, levels: int, options: Int8Options) -> tuple[float, float]:
    """(low, high) of a value: its ends, cut at the threshold of the chosen method."""
    if histogram.largest == 0:
        return 0.0, 0.0
    threshold = BY_NAME[options.method](histogram, levels, options)
    return max(histogram.low, -threshold), min(histogram.high, threshold)
