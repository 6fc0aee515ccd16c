"""Two of four: of every four neighbouring input channels at most two weights are not zero.

    weight (O, I/g, kh, kw)      group j of filter o at tap (y, x):  w[o, 4j : 4j + 4, y, x]

Sparse tensor cores multiply a matrix whose rows are filters and whose columns are what a filter sums over, and skip
two of every four neighbours in a row. For a convolution on channels-last data a row is in the order (kh, kw, I), so
neighbours are input channels at one tap. It is not the order of `weight.reshape(O, I * kh * kw)`, whose neighbours are
taps of one channel. For a linear layer, (O, I), both are the same.

A layer is left whole, with the reason, where the input channels of a group do not divide by four, and where it is
transposed, whose sum runs along another axis.
Source: Mishra et al. 2021, arXiv 2104.08378, for the format; the two larger magnitudes stay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .kernels import Kernel, Kernels, find_kernels
from .pattern import Pattern


def two_of_four_pattern(module: nn.Module) -> Pattern:
    """The pattern that keeps the two larger of every four weights; of equal ones the first stay.

    module: any, its kernels float and finite. It is not changed. Raises ConfigError for kernels that are not finite.
    """
    return choose_two_of_four(find_kernels(module))


def choose_two_of_four(kernels: Kernels) -> Pattern:
    """The same for kernels by themselves."""
    keep: dict[str, Tensor] = {}
    notes = [*kernels.notes, *([] if kernels.found else ["there is no kernel to prune"])]
    for kernel in kernels.found:
        reason = _unfit(kernel)
        if reason is None:
            keep[kernel.name] = _larger_two(kernel.weight.detach().cpu())
        else:
            notes.append(f"{kernel.name} stays whole: {reason}")
    return Pattern(keep=keep, notes=tuple(notes))


def _unfit(kernel: Kernel) -> str | None:
    if kernel.transposed:
        return "a transposed convolution sums along another axis"
    width = kernel.weight.shape[1]
    return f"{width} input channels do not divide by 4" if width % 4 or not width else None


def _larger_two(weight: Tensor) -> Tensor:
    """(O, I, ...) float -> bool of the same shape, two True in every four along axis 1."""
    last = weight.abs().movedim(1, -1)
    fours = last.reshape(-1, 4)
    order = torch.argsort(fours, dim=1, descending=True, stable=True)
    keep = torch.zeros(fours.shape, dtype=torch.bool).scatter_(1, order[:, :2], True)
    return keep.reshape(last.shape).movedim(-1, 1).contiguous()
