"""The lasso on single weights.

    R = weight * sum_w |w|          dR/dw = weight * sign(w), 0 at 0

All weights are pulled alike, large ones too (Tibshirani 1996); l0's surrogate leaves those alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..options import check_choice, check_number
from .closed_form import with_gradient
from .view import Seen, View


@dataclass(frozen=True, slots=True, kw_only=True)
class L1:
    """The penalty; see the module docstring."""

    weight: float = 1e-5
    parameters: Literal["kernels", "all"] = "kernels"
    name: str = "l1"

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight)
        check_choice(self.name, "parameters", self.parameters, ("kernels", "all"))

    @property
    def looks_at(self) -> Seen:
        """Kernels, or all that is trained."""
        return "kernels" if self.parameters == "kernels" else "parameters"

    def penalty(self, view: View) -> Tensor:
        """R over the weights, a scalar with gradients, in closed form."""
        weights = view.weights(self.parameters)
        if not weights:
            return torch.zeros(())
        with torch.no_grad():
            value = self.weight * torch.stack(torch._foreach_norm(weights, 1)).sum()
            gradients = torch._foreach_sign(weights)
            torch._foreach_mul_(gradients, self.weight)
        return with_gradient(value, gradients, weights)
