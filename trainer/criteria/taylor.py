"""What the loss would change if a unit went, to first order.

    s[l, c] = sum over batches and over the weights w of channel c of |w * dloss/dw|

summed over all that goes with the unit: kernels, biases, scales and shifts of batch norms. The absolute value is taken
weight by weight, so that what would raise the loss here and lower it there does not cancel.

Source: Molchanov et al., CVPR 2019, arXiv 1906.10771, whose group score squares the sum of w * dloss/dw instead. Which
loss that is, the net says: see `Differentiable`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .kernels import flat, producers
from .protocol import LooksAt, gradients_of
from .units import ABSOLUTE, Pooling, Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Taylor:
    """The criterion; see the module docstring."""

    pool: Pooling = ABSOLUTE
    name: str = "taylor"

    @property
    def looks_at(self) -> LooksAt:
        """Gradients of the loss."""
        return "gradients"

    @property
    def adds_up(self) -> bool:
        """Over batches of images."""
        return True

    def score(self, net: Scored, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """One score per unit, higher = keep.

        images: (N, C, H, W) float32, normalised. Returns (units,) float64 in the order of `channels.unit_labels`.
        Raises ConfigError for a net without gradients.
        """
        found = list(producers(net, smallest_rank=1))
        totals = [np.zeros(len(array)) for *_, array in found]
        for gradients in gradients_of(self.name, net, images):
            for total, (name, axis, _, array) in zip(totals, found):
                if name in gradients:
                    total += np.abs(flat(array * np.moveaxis(gradients[name], axis, 0))).sum(1)
        return self.pool.over_units(net.channels, [(ids, total) for total, (_, _, ids, _) in zip(totals, found)])
