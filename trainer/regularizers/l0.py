"""l0 regularization by an exponential surrogate.

    R = alpha * sum_l s_l * sum_w (1 - exp(-beta |w|))  +  l2 * sum_w w^2
    dR/dw = alpha * s_l * beta * sign(w) * exp(-beta |w|)  +  2 * l2 * w

The pull towards zero is strongest at zero and fades for large weights, which distinguishes it from l1.
s_l = sqrt(N_l / N_ref), with N_ref the mean kernel size here: larger layers get more.

Source: Oliveira, Batista, Seara, Neural Networks 171 (2024), as in the authors' published training code (penalty added
to the loss, kernels only, Adam). N_ref is a reconstruction; `inverse` is the scale of a re-implementation. Applied
after the optimiser's step instead (`decoupled` in a recipe, see `penalties`) it is another method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..options import check_choice, check_number
from .closed_form import with_gradient
from .l2 import squares
from .view import Seen, View

LayerScale = Literal["sqrt", "inverse", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class L0:
    """The penalty; see the module docstring."""

    alpha: float = 1e-6
    beta: float = 5.0
    l2: float = 1e-4
    layer_scale: LayerScale = "sqrt"
    parameters: Literal["kernels", "all"] = "kernels"
    name: str = "l0"

    def __post_init__(self) -> None:
        check_number(self.name, "alpha", self.alpha)
        check_number(self.name, "beta", self.beta, open_low=True)
        check_number(self.name, "l2", self.l2)
        check_choice(self.name, "layer_scale", self.layer_scale, get_args(LayerScale))
        check_choice(self.name, "parameters", self.parameters, ("kernels", "all"))

    @property
    def looks_at(self) -> Seen:
        """Kernels, or all that is trained."""
        return "kernels" if self.parameters == "kernels" else "parameters"

    def penalty(self, view: View) -> Tensor:
        """R over the weights, a scalar float tensor with gradients.

        Value and gradient are in closed form over all weights at once: no graph, no loop over elements.
        """
        weights = view.weights(self.parameters)
        if not weights:
            return torch.zeros(())
        scales = [self.alpha * s for s in layer_scales([w.numel() for w in weights], self.layer_scale)]
        with torch.no_grad():
            faded = torch._foreach_abs(weights)
            torch._foreach_mul_(faded, -self.beta)
            torch._foreach_exp_(faded)
            count = torch.stack([s * (w.numel() - f.sum()) for s, w, f in zip(scales, weights, faded)]).sum()
            value = count + self.l2 * squares(weights)
            gradients = torch._foreach_sign(weights)
            torch._foreach_mul_(gradients, faded)
            torch._foreach_mul_(gradients, [s * self.beta for s in scales])
            torch._foreach_add_(gradients, weights, alpha=2 * self.l2)
        return with_gradient(value, gradients, weights)


def layer_scales(sizes: Sequence[int], law: LayerScale) -> list[float]:
    """s_l for weights of these sizes, relative to their mean size."""
    reference = sum(sizes) / max(len(sizes), 1)
    if law == "sqrt":
        return [(n / reference) ** 0.5 for n in sizes]
    return [reference / n if law == "inverse" else 1.0 for n in sizes]
