"""What regularizers look at, made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgeslim.trainer.regularizers import Kernel, Regularizer, View


def seen(tensors: Sequence[Tensor], share: float = 0.0) -> View:
    """These tensors as the kernels of plain convolutions or linear layers."""
    return View(kernels=[Kernel(weight=w) for w in tensors], share=share)


def random_kernels(seed: int = 0, away: float = 0.0) -> list[Tensor]:
    """Kernels of several shapes, float64, with gradients; no weight nearer to zero than `away`."""
    shapes = ((4, 3, 3, 3), (6, 4, 1, 1), (5, 8), (3, 2, 5), (2, 3, 2, 2), (6, 1, 3, 3))
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [(w + away * w.sign()).requires_grad_() for w in made]


def pull(rule: Regularizer, view: View, on: Tensor) -> Tensor:
    """The gradient of the penalty on one of the tensors."""
    (gradient,) = torch.autograd.grad(rule.penalty(view), [on])
    return gradient
