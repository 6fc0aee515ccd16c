"""Prune the weights that matter least to their own layer: LAMP, layer-adaptive magnitudes.

    s(w) = w^2 / sum of v^2 over the weights v of the kernel with |v| >= |w|

The weights of smallest s go over all kernels together, as by magnitude. Plain magnitudes compare layers by the size of
their weights, which says little: a layer whose weights are small on the whole is emptied first. s does not change when
a kernel is multiplied by a number, and the largest weight of every kernel has s = 1, so that none is emptied before
all others. What is left differs most from plain magnitudes where little is left.

Source: Lee, Park, Mo, Ahn, Shin, ICLR 2021, arXiv 2010.07611.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .kernels import Kernel, Kernels, find_kernels
from .magnitude import choose_smallest
from .pattern import Pattern


def lamp_pattern(module: nn.Module, fraction: float) -> Pattern:
    """The pattern that prunes `fraction` of the weights of all kernels, the smallest scores first.

    module: any, its kernels float and finite.  fraction: in [0, 1]; weights that are zero already count as pruned.
    `module` is not changed. Raises ConfigError for a fraction out of range and for kernels that are not finite.
    """
    return choose_lamp(find_kernels(module), fraction)


def choose_lamp(kernels: Kernels, fraction: float) -> Pattern:
    """The same for kernels by themselves."""
    return choose_smallest(kernels, fraction, lamp_scores)


def lamp_scores(kernels: tuple[Kernel, ...]) -> Tensor:
    """s of all kernels one after the other: (weights,) float64, on the CPU; 0 for a weight of 0."""
    return torch.cat([_scores(kernel.weight.detach().flatten().to("cpu", torch.float64)) for kernel in kernels])


def _scores(weights: Tensor) -> Tensor:
    """Of weights of equal size the first goes first, as its sum is the larger one."""
    squares, order = torch.sort((weights / _largest(weights)).square(), stable=True)
    beyond = squares.flip(0).cumsum(0).flip(0)
    return torch.empty_like(squares).scatter_(0, order, squares / beyond.clamp_min(1e-300))


def _largest(weights: Tensor) -> Tensor:
    """By which they are divided, so that no square overflows or vanishes."""
    largest = weights.abs().max() if len(weights) else weights.new_ones(())
    return torch.where(largest > 0, largest, 1.0)
