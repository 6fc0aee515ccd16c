"""Weight decay as a penalty.

    R = weight * sum_w w^2          dR/dw = 2 * weight * w

In the loss, so it passes through an adaptive optimiser; the `weight_decay` of AdamW does not, which is another method.
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
class L2:
    """The penalty; see the module docstring."""

    weight: float = 1e-4
    parameters: Literal["kernels", "all"] = "kernels"
    name: str = "l2"

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
            value = self.weight * squares(weights)
            gradients = torch._foreach_mul(weights, 2 * self.weight)
        return with_gradient(value, gradients, weights)


def squares(weights: list[Tensor]) -> Tensor:
    """sum w^2 over tensors of any shapes, a scalar without gradients."""
    return torch.stack(torch._foreach_norm(weights)).square().sum()
