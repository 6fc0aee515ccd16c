"""From a recipe's section to a budget."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.cost import layer_costs
from edgeslim.progress import Progress, Silent

from ..recipe import BudgetSpec, RatioBudget
from ..recipe_target import TargetBudget
from .limits import WidthLimits
from .macs import Macs
from .memo import Memo, NoMemo
from .ratio import Ratio
from .reached import Reached
from .targets import parse_target


class Budget(Protocol):
    """How many units may stay, and with given scores which."""

    @property
    def reached(self) -> Reached | None:
        """What the last plan takes on its device; None for budgets that ask no device."""
        ...

    def select(self, channels: ChannelMap, scores: NDArray[np.float64], share: float = 1.0) -> frozenset[int]:
        """Labels of the units to cut when `share` in (0, 1] of the way to the budget is to be gone."""
        ...


def build_budget(
    section: BudgetSpec,
    limits: WidthLimits,
    channels: ChannelMap,
    shape: tuple[int, ...],
    *,
    takes_frames: bool = True,
    progress: Progress | None = None,
    memo: Memo | None = None,
    new_device: bool = False,
) -> Budget:
    """The budget that a recipe asks for. shape: (N, C, H, W) of the image at which work is counted.

    takes_frames: what is timed is the graph that a camera feeds, not the net's own input.  memo: of plans that were
    measured before.  new_device: measure this one even where the profile knows others alone. Raises DeviceError for a
    device that is not here, or a profile that is not its own.
    """
    if isinstance(section, RatioBudget):
        return Ratio(ratio=section.ratio, limits=limits)
    if isinstance(section, TargetBudget):
        # With SciPy, which slimming a file without a target does without.
        from edgeslim.bench.profile import CollectOptions, find_device

        from .target import Target

        wanted = parse_target(section.target)
        timed = any(limit.resource == "latency" for limit in wanted)
        return Target(
            limits=wanted,
            text=section.target,
            channels=channels,
            shape=shape,
            place=find_device(
                section.device, section.profile, allow_foreign=section.allow_foreign_profile, add=new_device
            )
            if timed
            else None,
            widths=limits,
            min_share=section.min_share,
            progress=progress or Silent(),
            memo=memo or NoMemo(),
            takes_frames=takes_frames,
            part=section.part,
            options=CollectOptions(nets=section.nets),
            seconds=section.seconds,
        )
    costs = layer_costs(channels.model, shape)
    return Macs(keep=section.keep, costs=costs, limits=limits, min_share=section.min_share)
