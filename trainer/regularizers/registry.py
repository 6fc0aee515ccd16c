"""From a recipe's section to a regularizer, and what regularizers act on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from ..recipe import L0Regularizer
from ..task import Step, Term
from .l0 import L0


class Regularizer(Protocol):
    """A penalty added to the task loss."""

    @property
    def name(self) -> str:
        """How the penalty is called in logs."""
        ...

    def penalty(self, kernels: Sequence[Tensor]) -> Tensor:
        """The weighted penalty, a scalar with gradients."""
        ...


def build_regularizer(section: L0Regularizer) -> Regularizer:
    """The regularizer that a recipe asks for."""
    return L0(alpha=section.alpha, beta=section.beta, l2=section.l2, layer_scale=section.layer_scale)


def penalty_term(regularizer: Regularizer) -> Term:
    """A penalty as a term of a run's loss: over the kernels of the net in training."""

    def term(step: Step) -> Tensor:
        return regularizer.penalty(kernels(step.module))

    return term


def kernels(module: nn.Module) -> list[nn.Parameter]:
    """Weights of convolutions and linear layers: no biases, no batch norms."""
    layers = (nn.modules.conv._ConvNd, nn.Linear)
    found = dict.fromkeys(m.weight for m in module.modules() if isinstance(m, layers))
    return [w for w in found if isinstance(w, nn.Parameter) and w.requires_grad]
