"""Filters that say the same: pushed apart, or pulled together so that one of them can go.

    c_fg     = <W_f, W_g> / (|W_f| |W_g|)              a pair where |c_fg| > tau
    repel    = sum over pairs (|c_fg| - tau)^2
    attract  = sum over pairs (1 - |c_fg|)^2
    P_l      = sum over the lesser filters of all pairs  sqrt(K) |W_f|_2 / N_l
    R        = weight * mean_l ( repel or attract, / number of all f < g   +   t * pressure * P_l )

f and g belong to one group of their layer: filters of two groups read different channels, and none of them can stand in
for the other. So depthwise layers have no pairs and take no part.

The lesser of a pair is the one of smaller norm, or with fewer gradients in its kernel (the count of `gradient_count`).
It is the candidate to go, and t, rising from 0 to 1 over the stage, weakens it further and further, so that its removal
costs nothing. Filters that are exactly parallel stay so under `repel`: the cosine is at its maximum there and has no
slope.

Source: that redundant filters are found, and their effect minimised before they go, is known of Khan et al., ICONIP
2022 (arXiv 2210.07451). Cosine, threshold, both signs, the lesser of a pair and the growing pressure are
reconstructions; attracting before dropping follows Singh et al., WACV 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..options import check_choice, check_number
from .gradient_count import kernel_differences
from .group_lasso import filter_norms
from .view import Seen, View

COUNTED = 0.1
"""A difference in a kernel counts above this share of its layer's mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redundancy:
    """The penalty; see the module docstring."""

    weight: float = 1e-2
    sign: Literal["repel", "attract"] = "attract"
    tau: float = 0.8
    pressure: float = 1.0
    rank: Literal["norm", "gradient_count"] = "norm"
    name: str = "redundancy"

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight)
        check_number(self.name, "tau", self.tau, high=1.0)
        check_number(self.name, "pressure", self.pressure)
        check_choice(self.name, "sign", self.sign, ("repel", "attract"))
        check_choice(self.name, "rank", self.rank, ("norm", "gradient_count"))

    @property
    def looks_at(self) -> Seen:
        """Kernels, whose filters are compared."""
        return "kernels"

    def penalty(self, view: View) -> Tensor:
        """R over all layers with at least two filters a group, of at least two weights; a scalar with gradients."""
        seen = [(kernel.filters(), kernel.groups) for kernel in view.kernels]
        layers = [self._layer(f, groups, view.share) for f, groups in seen if len(f) > groups and f[0].numel() > 1]
        return self.weight * torch.stack(layers).mean() if layers else torch.zeros(())

    def _layer(self, filters: Tensor, groups: int, share: float) -> Tensor:
        with torch.no_grad():
            pairs = (cosines(filters) > self.tau).fill_diagonal_(False)
            if groups > 1:
                group = torch.arange(len(filters), device=filters.device) * groups // len(filters)
                pairs &= group[:, None] == group
            if not pairs.any():  # as in most layers of most nets: nothing to differentiate
                return filters.new_zeros(())
            lesser = self.lesser(filters, pairs)
        size = cosines(filters)
        away = size - self.tau if self.sign == "repel" else 1.0 - size
        distance = torch.where(pairs, away, 0.0).square().sum()  # every pair twice
        count = len(filters)
        pressure = (filter_norms(filters) * lesser).sum() / filters.numel()
        return distance / (count * (count // groups - 1)) + share * self.pressure * pressure

    def lesser(self, filters: Tensor, pairs: Tensor) -> Tensor:
        """Which filters are the lesser of any pair; of equals the later one.

        filters: (O, ...).  pairs: (O, O) bool, symmetric. Returns (O,) bool.
        """
        if self.rank == "norm":
            rank = filter_norms(filters)
        else:
            size = kernel_differences(filters).abs().sum(0)
            rank = (size > COUNTED * size.mean()).flatten(1).sum(1).to(filters.dtype)
        order = torch.arange(len(rank), device=rank.device)
        below = (rank[:, None] < rank) | ((rank[:, None] == rank) & (order[:, None] > order))
        return (pairs & below).any(1)


def cosines(filters: Tensor) -> Tensor:
    """|cos| of the angle between any two filters; 0 to one that is zero. (O, ...) -> (O, O)."""
    unit = F.normalize(filters.flatten(1), dim=1)
    return (unit @ unit.T).abs()
