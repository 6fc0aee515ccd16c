"""Prune the weights of smallest magnitude.

    globally     the n smallest |w| of all kernels together, n = round(fraction * N)
    per layer    the n_l smallest of every kernel, n_l = round(fraction * N_l)

Equal magnitudes go in the order of kernels and, inside one, of its elements, so exactly n weights go, the same ones
every time. A kernel never loses all its weights: its largest stays, so that one unit of every layer lives. What would
have gone instead is said in a note; where only such weights are left, fewer than n go, and that is said too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgeslim.errors import ConfigError

from .kernels import Kernel, Kernels, find_kernels
from .pattern import Pattern

Score = Callable[[tuple[Kernel, ...]], Tensor]


def magnitude_pattern(module: nn.Module, fraction: float, *, per_layer: bool = False) -> Pattern:
    """The pattern that prunes `fraction` of the weights of all kernels, the smallest magnitudes first.

    module: any, its kernels float and finite.  fraction: in [0, 1]; weights that are zero already count as pruned.
    per_layer: the same fraction of every kernel instead of one order over all.
    `module` is not changed. Raises ConfigError for a fraction out of range and for kernels that are not finite.
    Source: the global order as in Han et al. 2015; the rule of Oliveira et al. 2024 is not known.
    """
    return choose_magnitude(find_kernels(module), fraction, per_layer=per_layer)


def choose_magnitude(kernels: Kernels, fraction: float, *, per_layer: bool = False) -> Pattern:
    """The same for kernels by themselves."""
    return choose_smallest(kernels, fraction, magnitudes, per_layer=per_layer)


def choose_smallest(kernels: Kernels, fraction: float, score: Score, *, per_layer: bool = False) -> Pattern:
    """The pattern that prunes `fraction` of all weights, the smallest scores first.

    score: of the weights of kernels one after the other, (weights,), at least 0 and largest for a kernel's largest
    weight. Raises ConfigError for a fraction out of range.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0.0 <= fraction <= 1.0:
        raise ConfigError(f"fraction is {fraction!r}; it must lie between 0 and 1", "0.9 prunes nine weights of ten")
    if not kernels.found:
        return Pattern(keep={}, notes=(*kernels.notes, "there is no kernel to prune"))
    notes = list(kernels.notes)
    keep: dict[str, Tensor] = {}
    for group in [(k,) for k in kernels.found] if per_layer else [kernels.found]:
        own, said = _prune_smallest(group, score(group), round(fraction * sum(k.weight.numel() for k in group)))
        keep |= own
        notes += said
    return Pattern(keep=keep, notes=tuple(notes))


def _prune_smallest(kernels: tuple[Kernel, ...], sizes: Tensor, count: int) -> tuple[dict[str, Tensor], list[str]]:
    """Kernel's name -> which of its weights stay when the `count` smallest go, and notes on what stayed instead."""
    order = torch.argsort(sizes, stable=True)
    largest = largest_of_each(kernels, sizes)
    spared = largest & ~_all_but(order[:count], len(sizes))
    candidates = order[~largest[order]]
    keep = _split(kernels, _all_but(candidates[:count], len(sizes)))
    notes = [
        f"{kernel.name} would have lost all its weights: the largest stays"
        for kernel, flags in zip(kernels, _split(kernels, spared).values())
        if bool(flags.any())
    ]
    if count > len(candidates):
        notes.append(f"{count:,} weights were to go, {len(candidates):,} can")
    return keep, notes


def magnitudes(kernels: tuple[Kernel, ...]) -> Tensor:
    """|w| of all kernels one after the other: (weights,) float32, or float64 where one is, on the CPU."""
    wide = any(kernel.weight.dtype == torch.float64 for kernel in kernels)
    dtype = torch.float64 if wide else torch.float32
    return torch.cat([kernel.weight.detach().abs().flatten().to("cpu", dtype) for kernel in kernels])


def largest_of_each(kernels: tuple[Kernel, ...], sizes: Tensor) -> Tensor:
    """(weights,) bool, True at the largest weight of every kernel, at the last of equal ones."""
    flags, start = torch.zeros(len(sizes), dtype=torch.bool), 0
    for kernel in kernels:
        own = sizes[start : start + kernel.weight.numel()]
        if len(own):  # the last in the order in which weights go
            flags[start + int(torch.argsort(own, stable=True)[-1])] = True
        start += kernel.weight.numel()
    return flags


def pattern_of(kernels: tuple[Kernel, ...], keep: Tensor, notes: tuple[str, ...] = ()) -> Pattern:
    """The pattern of flags over all kernels one after the other, (weights,) bool."""
    return Pattern(keep=_split(kernels, keep), notes=notes)


def _split(kernels: tuple[Kernel, ...], flags: Tensor) -> dict[str, Tensor]:
    pieces = torch.split(flags, [kernel.weight.numel() for kernel in kernels])
    return {kernel.name: piece.reshape(kernel.weight.shape) for kernel, piece in zip(kernels, pieces)}


def _all_but(gone: Tensor, size: int) -> Tensor:
    flags = torch.ones(size, dtype=torch.bool)
    flags[gone] = False
    return flags
