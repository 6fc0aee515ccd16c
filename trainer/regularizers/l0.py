"""l0 regularization by an exponential surrogate.

    R = alpha * sum_l s_l * sum_w (1 - exp(-beta |w|))  +  l2 * sum_w w^2
    dR/dw = alpha * s_l * beta * sign(w) * exp(-beta |w|)  +  2 * l2 * w

The pull towards zero is strongest at zero and fades for large weights, which distinguishes it from l1.
s_l = sqrt(N_l / N_ref), with N_ref the mean kernel size here: larger layers get more.

Source: Oliveira, Batista, Seara, Neural Networks 171 (2024), as in the authors' published training code (penalty added
to the loss, kernels only, Adam). N_ref is a reconstruction; `inverse` is the scale of a re-implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

LayerScale = Literal["sqrt", "inverse", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class L0:
    """The penalty; see the module docstring."""

    alpha: float = 1e-6
    beta: float = 5.0
    l2: float = 1e-4
    layer_scale: LayerScale = "sqrt"
    name: str = "l0"

    def penalty(self, kernels: Sequence[Tensor]) -> Tensor:
        """R over the kernels of convolutions and linear layers, a scalar float tensor with gradients.

        Forward and gradient are in closed form over all kernels at once: no graph, no loop over elements.
        """
        if not kernels:
            return torch.zeros(())
        scales = [self.alpha * s for s in layer_scales([k.numel() for k in kernels], self.layer_scale)]
        value: Tensor = _Penalty.apply(scales, self.beta, self.l2, *kernels)  # type: ignore[no-untyped-call]
        return value


def layer_scales(sizes: Sequence[int], law: LayerScale) -> list[float]:
    """s_l for kernels of these sizes, relative to their mean size."""
    reference = sum(sizes) / max(len(sizes), 1)
    if law == "sqrt":
        return [(n / reference) ** 0.5 for n in sizes]
    return [reference / n if law == "inverse" else 1.0 for n in sizes]


class _Penalty(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scales: list[float], beta: float, l2: float, *kernels: Tensor) -> Tensor:
        faded = torch._foreach_abs(kernels)
        torch._foreach_mul_(faded, -beta)
        torch._foreach_exp_(faded)
        ctx.save_for_backward(*kernels, *faded)
        ctx.scales, ctx.beta, ctx.l2 = scales, beta, l2
        total = sum(s * (k.numel() - f.sum()) for s, k, f in zip(scales, kernels, faded))
        squares = torch.stack(torch._foreach_norm(kernels)).square().sum()
        return torch.as_tensor(total + l2 * squares)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        kernels, faded = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        gradients = torch._foreach_sign(kernels)
        torch._foreach_mul_(gradients, faded)
        torch._foreach_mul_(gradients, [s * ctx.beta for s in ctx.scales])
        torch._foreach_add_(gradients, kernels, alpha=2 * ctx.l2)
        torch._foreach_mul_(gradients, upstream[0])
        return (None, None, None, *gradients)
