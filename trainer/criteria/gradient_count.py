"""Counting gradients: how many positions differ from their neighbour, relative to all.

    s[l, c] = mean over p of 1 - exp(-beta * d_p / mean d)        a smooth count, or without beta
            = #{ p : d_p > eps * mean d } / #p                    a hard one

    kernel    d_p = |differences of W[c, i] to the next position|_1, inside a boundary of zeros; kernels of one position
              differ along the input channels
    feature   the same on the feature map behind the non-linearity, without a boundary; summed over images
    loss      p runs over a window of training steps, d_p = mean |dloss/dW[c]| in that step: how often a filter is
              still being taught. The steps are taken on a copy of the net

The mean of d is that of the layer (in that image, in that step), so sizes do not matter. A hard count of few positions
has many ties, which a budget breaks by order. The smaller beta, the more a large difference counts for, up to the total
variation of the signal as beta goes to 0; the default did best in docs/results/criteria.md.

Source: that sparsity is measured by gradient counting is known of Khan et al., ICONIP 2022 (arXiv 2210.07451), from its
abstract; the formulas are not. The count is that of L0 gradient minimisation (Xu et al. 2011). The three readings, the
threshold relative to the layer and the window are reconstructions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeslim.exporter.channels.labels import Ids
from edgeslim.exporter.feature_maps import find_feature_maps, run_feature_maps

from ..options import check_choice, check_count, check_number
from .kernels import flat, producers
from .protocol import LooksAt, gradients_of
from .units import RELATIVE, Pooling, Scored, Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientCount:
    """The criterion; see the module docstring. window, rate: training steps and their learning rate, for `loss`."""

    on: Literal["kernel", "feature", "loss"] = "feature"
    eps: float = 0.1
    beta: float | None = 0.2
    window: int = 16
    rate: float = 1e-3
    pool: Pooling = RELATIVE
    name: str = "gradient_count"

    def __post_init__(self) -> None:
        check_choice(self.name, "on", self.on, ("kernel", "feature", "loss"))
        check_number(self.name, "eps", self.eps)
        if self.beta is not None:
            check_number(self.name, "beta", self.beta, open_low=True)
        check_count(self.name, "window", self.window)
        check_number(self.name, "rate", self.rate)

    @property
    def looks_at(self) -> LooksAt:
        """As `on` says."""
        looks: dict[str, LooksAt] = {"kernel": "weights", "feature": "feature maps", "loss": "gradients"}
        return looks[self.on]

    @property
    def adds_up(self) -> bool:
        """Over images, unless it is training steps that are counted, one after the other."""
        return self.on == "feature"

    def score(self, net: Scored, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """One score per unit, higher = keep.

        images: (N, C, H, W) float32, normalised; not looked at for `kernel`. Returns (units,) float64 in the order of
        `channels.unit_labels`. Raises ConfigError for `loss` on a net without gradients.
        """
        read = {"kernel": self._kernels, "feature": self._features, "loss": self._losses}[self.on]
        return self.pool.over_units(net.channels, read(net, images))

    def count(self, differences: Scores) -> Scores:
        """The share of positions that count: (C, P), none negative, -> (C,) in [0, 1]."""
        mean = max(float(differences.mean()), 1e-100)
        if self.beta is None:
            return np.asarray((differences > self.eps * mean).mean(1))
        return np.asarray(-np.expm1(-self.beta / mean * differences).mean(1))

    def _kernels(self, net: Scored, images: NDArray[np.float32]) -> Iterator[tuple[Ids, Scores]]:
        for _, _, ids, weights in producers(net):
            yield ids, self.count(kernel_differences(weights))

    def _features(self, net: Scored, images: NDArray[np.float32]) -> Iterator[tuple[Ids, Scores]]:
        maps = find_feature_maps(net.channels)
        totals = [np.zeros(len(m.ids)) for m in maps]
        for arrays in run_feature_maps(net.graph, maps, images):
            for total, array in zip(totals, arrays):
                total += self.count(map_differences(array.astype(np.float64)))
        yield from ((m.ids, total) for m, total in zip(maps, totals))

    def _losses(self, net: Scored, images: NDArray[np.float32]) -> Iterator[tuple[Ids, Scores]]:
        found = list(producers(net))
        steps: list[list[Scores]] = [[] for _ in found]
        for gradients in gradients_of(self.name, net, images, self.window, self.rate):
            for taught, (name, axis, _, _) in zip(steps, found):
                if name in gradients:
                    size = np.abs(flat(np.moveaxis(gradients[name], axis, 0))).mean(1)
                    taught.append(size / max(float(size.mean()), 1e-300))
        for taught, (_, _, ids, _) in zip(steps, found):
            if taught:
                yield ids, self.count(np.stack(taught, 1))


def kernel_differences(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """|differences|_1 at every position of every kernel of a filter: (C, I, ...) or (C, I) -> (C, positions)."""
    if weights.ndim < 3 or weights[0, 0].size == 1:
        return np.abs(np.diff(np.pad(flat(weights), ((0, 0), (1, 1))), axis=1))
    padded = np.pad(weights, ((0, 0), (0, 0), *((1, 1),) * (weights.ndim - 2)))
    inside = (slice(None), slice(None), *(slice(0, n + 1) for n in weights.shape[2:]))
    total = np.sum([np.abs(np.diff(padded, axis=axis)[inside]) for axis in range(2, weights.ndim)], axis=0)
    return flat(total)


def map_differences(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """|differences|_1 at every position of feature maps, 0 past the end of an axis: (C, ...) -> (C, positions)."""
    total = np.zeros_like(array)
    for axis in range(1, array.ndim):
        inside = (slice(None),) * axis + (slice(0, -1),)
        total[inside] += np.abs(np.diff(array, axis=axis))
    return flat(total)
