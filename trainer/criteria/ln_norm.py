"""Layer-wise Ln-norm of feature maps.

    s[l, c] = sum over images of ( (1/P) sum_p |a[l, c, p]|^n_l )^(1/n_l),     n = infinity: max_p |a|
    1 / n_l = 1 - l / (L - 1),   l = 0 .. L-1

a is channel c's feature map after batch norm and non-linearity. n grows from 1 at the first layer (how much the
channel carries on the whole) to infinity at the last (whether it fires anywhere). To see what that growth is worth, n
may also grow in three steps (`stages`: 1, 2, infinity for a third of the layers each), or be one number for all.

Source: Wang & Zhu, JVCIR 2019 (arXiv 1812.03608), whose abstract gives n = 1 at the first and infinity at the last
layer. The law between the ends, the sum over images and the normalisation by the layer mean are reconstructions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeslim.exporter.feature_maps import find_feature_maps, run_feature_maps

from ..options import check_choice, check_number
from .protocol import LooksAt
from .units import RELATIVE, Pooling, Scored

LARGEST_N = 64.0
"""Above it the power mean is the maximum to single precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LnNorm:
    """The criterion; see the module docstring. n: a law, or a number from 1 to infinity, also as the word "inf"."""

    n: float | Literal["depth", "stages", "inf"] = "depth"
    pool: Pooling = RELATIVE
    name: str = "ln_norm"

    def __post_init__(self) -> None:
        if isinstance(self.n, str):
            check_choice(self.name, "n", self.n, ("depth", "stages", "inf"))
        else:
            check_number(self.name, "n", self.n, low=1.0, open_high=False)

    @property
    def looks_at(self) -> LooksAt:
        """Feature maps."""
        return "feature maps"

    @property
    def adds_up(self) -> bool:
        """Over images."""
        return True

    def order(self, depth: int, depths: int) -> float:
        """n of the 0-based layer `depth` of `depths` layers."""
        if self.n == "depth":
            return order_of_depth(depth, depths)
        return (1.0, 2.0, math.inf)[3 * depth // depths] if self.n == "stages" else float(self.n)

    def score(self, net: Scored, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """One score per unit, higher = keep.

        images: (N, C, H, W) float32, normalised. Returns (units,) float64 in the order of `channels.unit_labels`.
        """
        maps = find_feature_maps(net.channels)
        orders = [self.order(m.depth, m.depths) for m in maps]
        totals = [np.zeros(len(m.ids)) for m in maps]
        for arrays in run_feature_maps(net.graph, maps, images):
            for total, array, n in zip(totals, arrays, orders):
                total += power_mean(array.reshape(len(array), -1), n)
        return self.pool.over_units(net.channels, [(m.ids, total) for m, total in zip(maps, totals)])


def order_of_depth(depth: int, depths: int) -> float:
    """n of the 0-based layer `depth` of `depths` layers, infinity at the last."""
    inverse = 1.0 - depth / (depths - 1) if depths > 1 else 1.0
    return 1.0 / inverse if inverse > 1.0 / LARGEST_N else float("inf")


def power_mean(array: NDArray[np.float32], n: float) -> NDArray[np.float64]:
    """((1/P) sum |a|^n)^(1/n) along the last axis, the maximum factored out so that no power overflows.

    array: (..., P) -> (...) float64.
    """
    size = np.abs(array, dtype=np.float64) if array.dtype == np.float64 else np.abs(array.astype(np.float64))
    peak: NDArray[np.float64] = size.max(axis=-1, initial=0.0)
    if n > LARGEST_N:
        return peak
    safe = np.where(peak > 0, peak, 1.0)
    return np.asarray(peak * np.mean((size / safe[..., None]) ** n, axis=-1) ** (1.0 / n), np.float64)
