"""From a recipe's section to a budget."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.cost import layer_costs

from ..recipe import BudgetSpec, RatioBudget
from .limits import WidthLimits
from .macs import Macs
from .ratio import Ratio


class Budget(Protocol):
    """How many units may stay, and with given scores which."""

    def select(self, channels: ChannelMap, scores: NDArray[np.float64], share: float = 1.0) -> frozenset[int]:
        """Labels of the units to cut when `share` in (0, 1] of the way to the budget is to be gone."""
        ...


def build_budget(section: BudgetSpec, limits: WidthLimits, channels: ChannelMap, shape: tuple[int, ...]) -> Budget:
    """The budget that a recipe asks for. shape: (N, C, H, W) of the image at which work is counted."""
    if isinstance(section, RatioBudget):
        return Ratio(ratio=section.ratio, limits=limits)
    costs = layer_costs(channels.model, shape)
    return Macs(keep=section.keep, costs=costs, limits=limits, min_share=section.min_share)
