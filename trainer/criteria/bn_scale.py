"""Network slimming's score: the scale of the batch norm behind a channel.

    s[l, c] = |gamma[l, c]|

Compared across layers as it is, because behind a batch norm every channel has the size gamma gives it. It means most
after training under the regularizer of the same name. Source: Liu et al., ICCV 2017, arXiv 1708.06519.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import ConfigError

from .kernels import producers
from .protocol import LooksAt
from .units import ABSOLUTE, Pooling, Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class BnScale:
    """The criterion; see the module docstring."""

    pool: Pooling = ABSOLUTE
    name: str = "bn_scale"

    @property
    def looks_at(self) -> LooksAt:
        """Weights alone."""
        return "weights"

    def score(self, net: Scored, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """One score per unit, higher = keep; a unit without a batch norm stays. Images are not looked at.

        Returns (units,) float64 in the order of `channels.unit_labels`. Raises ConfigError for a net that has no batch
        norm to score by.
        """
        scales = {
            node.inputs[1].name
            for node in net.channels.model.graph
            if node.op_type == "BatchNormalization" and node.inputs[1] is not None
        }
        observed = [(ids, np.abs(w)) for name, _, ids, w in producers(net, smallest_rank=1) if name in scales]
        if not observed and net.channels.families:
            raise ConfigError(
                "criterion bn_scale: no channel of this net that could go has a batch norm behind it",
                "choose another criterion, such as l1 or ln_norm",
            )
        return self.pool.over_units(net.channels, observed)
