"""Network slimming: an l1 penalty on the scales of batch norms.

    R = weight * sum |gamma|        dR/dgamma = weight * sign(gamma), 0 at 0

A channel whose scale is zero carries a constant, and can leave. Kernels are not touched: behind a batch norm their size
means nothing. Source: Liu et al., ICCV 2017, arXiv 1708.06519, who use 1e-4 and 1e-5.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..options import check_number
from .l1 import L1
from .view import Seen, View


@dataclass(frozen=True, slots=True, kw_only=True)
class BnScale:
    """The penalty; see the module docstring."""

    weight: float = 1e-4
    name: str = "bn_scale"

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight)

    @property
    def looks_at(self) -> Seen:
        """Scales of batch norms."""
        return "scales"

    def penalty(self, view: View) -> Tensor:
        """R over all scales, a scalar with gradients, in closed form."""
        return L1(weight=self.weight, parameters="all").penalty(View(parameters=view.scales))
