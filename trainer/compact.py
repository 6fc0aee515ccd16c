"""The compact module beside the masked one: states go from one to the other and back, for fast fine-tuning.

A net whose forward hard-codes a width cannot be shrunk; it is recognised by running it, never assumed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from edgeslim.errors import UnsupportedGraphError, first_line
from edgeslim.exporter.plan import AxisPlan, PruningPlan
from edgeslim.exporter.shrink import shrink_module, shrink_tensor
from edgeslim.exporter.trace import evaluating, flatten_outputs

from .checkpoint import copy_state

RELATIVE_TOLERANCE = 1e-4
"""Largest difference between masked and compact output, relative to the largest output."""


def mask_state(state: Mapping[str, torch.Tensor], plan: PruningPlan) -> dict[str, torch.Tensor]:
    """A copy of a dense state with the cut indices of all masked axes set to zero."""
    masked = copy_state(state)
    _zero_cut(masked, plan)
    return masked


def hold_masks(module: nn.Module, plan: PruningPlan) -> None:
    """Zero the masked slices of a module's own tensors, in place."""
    with torch.no_grad():
        _zero_cut(module.state_dict(), plan)


def weaken(module: nn.Module, plan: PruningPlan, factor: float) -> None:
    """Multiply what `hold_masks` would set to zero by `factor`, in place; a tensor named twice, twice."""
    with torch.no_grad():
        for name, axes in _planned(state := module.state_dict(), plan):
            for axis in axes:
                if axis.masked:
                    index = _index(axis.cut, state[name])
                    state[name].index_copy_(axis.axis, index, factor * state[name].index_select(axis.axis, index))


def shrink_state(state: Mapping[str, torch.Tensor], plan: PruningPlan) -> dict[str, torch.Tensor]:
    """The part of a dense state that stays."""
    small = dict(state)
    for name, axes in _planned(small, plan):
        small[name] = shrink_tensor(small[name], axes)
    return copy_state(small)


def expand_state(
    small: Mapping[str, torch.Tensor], dense: Mapping[str, torch.Tensor], plan: PruningPlan
) -> dict[str, torch.Tensor]:
    """Put a compact state back into dense shapes: the masked net that computes the same.

    What the compact net does not have comes from `dense`, with the masked slices zero. So a consumer's weights of
    a dead channel are not zero: the equality rests on the channel being silent, as it must.
    """
    full = mask_state(dense, plan)
    for name, tensor in small.items():
        target = full[name]
        axes = {axis.axis: axis.keep for axis in plan.initializers.get(name, ())}
        if not axes:
            full[name] = tensor.detach().clone()
            continue
        grid = torch.meshgrid(
            *(_index(axes.get(d, tuple(range(n))), target) for d, n in enumerate(target.shape)), indexing="ij"
        )
        target[grid] = tensor.detach()
    return full


def compact_module(dense: nn.Module, plan: PruningPlan, example: torch.Tensor) -> nn.Module:
    """A physically smaller copy of `dense`, run on `example` and compared with the masked net.

    dense: the module the plan was made for (any weights). example: an image batch.
    Raises PlanError if the plan belongs to another model, UnsupportedGraphError if the class cannot be shrunk.
    """
    small = shrink_module(copy.deepcopy(dense), plan)
    masked = copy.deepcopy(dense)
    hold_masks(masked, plan)
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    for images in (example, noise):
        _compare(masked, small, images)
    return small


def _zero_cut(state: Mapping[str, torch.Tensor], plan: PruningPlan) -> None:
    for name, axes in _planned(state, plan):
        for axis in axes:
            if axis.masked:
                state[name].index_fill_(axis.axis, _index(axis.cut, state[name]), 0)


def _planned(state: Mapping[str, torch.Tensor], plan: PruningPlan) -> list[tuple[str, tuple[AxisPlan, ...]]]:
    """The plan's initializers that are in a state; the others are constants of the graph."""
    return [(name, axes) for name, axes in plan.initializers.items() if name in state]


def _compare(masked: nn.Module, small: nn.Module, example: torch.Tensor) -> None:
    try:
        with evaluating(masked), evaluating(small), torch.no_grad():
            wanted, seen = flatten_outputs(masked(example)), flatten_outputs(small(example))
    except Exception as error:  # a forward that hard-codes a width fails in any way it likes
        raise UnsupportedGraphError(
            f"{type(small).__name__} does not run with fewer channels: {first_line(error)}",
            "it is trained masked instead; the exported graph is compact all the same",
        ) from error
    for a, b in ((s.double(), w.double()) for s, w in zip(seen, wanted)):
        limit = RELATIVE_TOLERANCE * max(float(b.abs().max()) if b.numel() else 0.0, 1e-6)
        if a.shape != b.shape or not bool(((a - b).abs() <= limit).all()):
            raise UnsupportedGraphError(
                f"{type(small).__name__}: the compact module does not compute what the masked one does",
                "it is trained masked instead; the exported graph is compact all the same",
            )


def _index(indices: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(indices, dtype=torch.long, device=like.device)
