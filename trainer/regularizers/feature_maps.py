"""Feature maps of the net in training, caught where they leave a non-linearity.

Hooks on the modules that are non-linearities, so a net that calls them as functions has none to catch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

NONLINEARITIES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Softplus, nn.Tanh,
)  # fmt: skip
"""Sigmoids are left out: they are gates and outputs, not features."""


def nonlinearities(module: nn.Module) -> list[nn.Module]:
    """The modules behind which a feature map can be caught."""
    return [m for m in module.modules() if isinstance(m, NONLINEARITIES)]


@contextmanager
def caught_maps(module: nn.Module) -> Iterator[list[Tensor]]:
    """A list that holds, after each training forward of `module`, its feature maps (N, C, ...) in the order of calls.

    The maps have gradients. What runs without them (an evaluation) is not caught.
    """
    maps: list[Tensor] = []

    def begin(net: nn.Module, given: object) -> None:
        if torch.is_grad_enabled():
            maps.clear()

    def catch(part: nn.Module, given: object, output: object) -> None:
        if torch.is_grad_enabled() and isinstance(output, Tensor) and output.ndim >= 2:
            maps.append(output)

    hooks = [module.register_forward_pre_hook(begin)]
    hooks += [part.register_forward_hook(catch) for part in nonlinearities(module)]
    try:
        yield maps
    finally:
        maps.clear()
        for hook in hooks:
            hook.remove()
