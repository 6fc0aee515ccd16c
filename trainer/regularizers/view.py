"""What regularizers look at: the tensors of the net in training, each kind under its name.

    kernels      weights of convolutions and linear layers: no biases, no batch norms
    parameters   everything that is trained
    scales       gamma of batch norms
    maps         what left the non-linearities in this step's forward pass

A regularizer says in `looks_at` which of them it needs. Nothing is collected that nobody needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

Seen = Literal["kernels", "parameters", "scales", "maps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The weight of a layer: (O, I/groups, ...), or (I, O/groups, ...) of a transposed convolution."""

    weight: Tensor
    transposed: bool = False
    groups: int = 1

    def filters(self) -> Tensor:
        """The weight with its output channels first, as the kernels (O, I/groups, ...) of a convolution."""
        if not self.transposed:
            return self.weight
        inputs, outputs, *space = self.weight.shape
        grouped = self.weight.reshape(self.groups, inputs // self.groups, outputs, *space)
        return grouped.transpose(1, 2).reshape(self.groups * outputs, inputs // self.groups, *space)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The net as penalties see it in one step.

    share: in [0, 1], how far the stage has come since the penalty set in; what is annealed goes by it.
    """

    kernels: Sequence[Kernel] = ()
    parameters: Sequence[Tensor] = ()
    scales: Sequence[Tensor] = ()
    maps: Sequence[Tensor] = ()
    share: float = 0.0

    def weights(self, which: Literal["kernels", "all"]) -> list[Tensor]:
        """The tensors that a penalty on single weights acts on."""
        return [k.weight for k in self.kernels] if which == "kernels" else list(self.parameters)


def view_of(module: nn.Module, maps: Sequence[Tensor] = (), share: float = 0.0) -> View:
    """Look at a net: what is shared is seen once, what is frozen is not seen."""
    layers = {id(m.weight): m for m in module.modules() if isinstance(m, (_ConvNd, nn.Linear))}
    found = [
        Kernel(weight=m.weight, transposed=getattr(m, "transposed", False), groups=getattr(m, "groups", 1))
        for m in layers.values()
        if isinstance(m.weight, nn.Parameter) and m.weight.requires_grad
    ]
    norms = {id(m.weight): m.weight for m in module.modules() if isinstance(m, _BatchNorm) and m.weight is not None}
    return View(
        kernels=found,
        parameters=[p for p in module.parameters() if p.requires_grad],
        scales=[w for w in norms.values() if w.requires_grad],
        maps=maps,
        share=share,
    )
