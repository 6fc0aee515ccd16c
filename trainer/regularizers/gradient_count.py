"""Counting gradients: in how many places a kernel, or a feature map, differs from its neighbour.

    C(x)  = #{ p : |d_p| > 0 },      d_p = (differences of x between p and the next position, one for each axis)
    R     = weight * mean_l C_l / N_l

A hard count has no useful gradient, so one of two surrogates stands in for it, sharper and sharper over the stage,
beta_t = beta^(1-t) beta_end^t:

    exponential   sum_p 1 - exp(-beta_t |d_p|_1)                   tends to C as beta grows
    splitting     sum_p min(1, beta_t |d_p|_2^2)                   tends to C as beta grows

The second is half-quadratic splitting with its auxiliary variable at its best value: of mu |d - h|^2 + [h != 0] the
minimum over h is at h = d where mu |d|^2 > 1 and at h = 0 elsewhere, with mu in the place of beta_t.

`kernel`: x is each W[f, i] over its spatial grid with a zero boundary, so that a constant kernel still counts where it
begins and ends; kernels of one position differ along the input channels instead. N_l is the number of weights.
`feature`: x is each channel of what leaves a non-linearity, without a boundary. N_l is the number of positions of all
channels and images.

Source: "sparsity by gradient counting" is known of Khan et al., ICONIP 2022 (arXiv 2210.07451), from its abstract; the
formulas are not. The count and its splitting are those of L0 gradient minimisation (Xu et al. 2011). Which signal is
counted, the boundary, the exponential surrogate and its annealing are reconstructions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeslim.errors import ConfigError

from ..options import check_choice, check_number
from ..recipe_regularizers import LOSS_IS_NO_PENALTY
from .view import Seen, View


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientCount:
    """The penalty; see the module docstring."""

    weight: float = 1e-2
    on: Literal["kernel", "feature"] = "kernel"
    form: Literal["exponential", "splitting"] = "exponential"
    beta: float = 5.0
    beta_end: float = 50.0
    name: str = "gradient_count"

    def __post_init__(self) -> None:
        if str(self.on) == "loss":
            raise ConfigError(f"{self.name}: {LOSS_IS_NO_PENALTY}", "as a penalty, count on kernel or feature")
        check_choice(self.name, "on", self.on, ("kernel", "feature"))
        check_choice(self.name, "form", self.form, ("exponential", "splitting"))
        check_number(self.name, "weight", self.weight)
        check_number(self.name, "beta", self.beta, open_low=True)
        check_number(self.name, "beta_end", self.beta_end, low=self.beta)

    @property
    def looks_at(self) -> Seen:
        """Kernels or feature maps."""
        return "kernels" if self.on == "kernel" else "maps"

    def penalty(self, view: View) -> Tensor:
        """R over all kernels, or all feature maps; a scalar with gradients.

        Raises ConfigError where every feature map is a single position.
        """
        beta = self.beta ** (1 - view.share) * self.beta_end**view.share
        if self.on == "kernel":
            filters = [kernel.filters() for kernel in view.kernels]
            layers = [self._count(kernel_differences(f), beta) / f.numel() for f in filters]
        else:
            if view.maps and not any(m[0, 0].numel() > 1 for m in view.maps):
                raise ConfigError(
                    f"{self.name}: no feature map behind a non-linearity of this net has more than one position, so "
                    "there is nothing to count",
                    "count on kernel, or take it out of sparsify.regularizers",
                )
            layers = [self._count(map_differences(m.float()), beta) / m.numel() for m in view.maps]
        return self.weight * torch.stack(layers).mean() if layers else torch.zeros(())

    def _count(self, differences: Tensor, beta: float) -> Tensor:
        if self.form == "exponential":
            return -torch.expm1(-beta * differences.abs().sum(0)).sum()
        return (beta * differences.square().sum(0)).clamp(max=1.0).sum()


def kernel_differences(filters: Tensor) -> Tensor:
    """Forward differences of every kernel inside a boundary of zeros.

    filters: (O, I, ...) -> (axes, O, I, positions + 1 a side), or (1, O, I + 1) where there is but one position.
    """
    if filters[0, 0].numel() == 1:
        return F.pad(filters.flatten(1), (1, 1)).diff(dim=1)[None]
    axes = range(2, filters.ndim)
    padded = F.pad(filters, (1, 1) * len(axes))
    inside = (slice(None), slice(None), *(slice(0, n + 1) for n in filters.shape[2:]))
    return torch.stack([padded.diff(dim=axis)[inside] for axis in axes])


def map_differences(maps: Tensor) -> Tensor:
    """Forward differences of feature maps; the last position of an axis has no next one and differs by zero.

    maps: (N, C, ...) -> (axes, N, C, ...); a map without axes has one, along which nothing differs.
    """
    if maps.ndim == 2:
        return torch.zeros_like(maps)[None]
    ends = [(0, 0) * (maps.ndim - 1 - axis) + (0, 1) for axis in range(2, maps.ndim)]
    return torch.stack([F.pad(maps.diff(dim=axis), end) for axis, end in enumerate(ends, start=2)])
