"""The compact module: the same class with fewer channels, for fast fine-tuning.

Parameters and buffers lose their cut indices, and the modules that repeat a width as a number (`out_channels`,
`num_features`, `groups`, ...) are corrected. No pickle: a fresh instance of the class and a plan are enough. A net
whose forward hard-codes a width cannot be shrunk this way; it is recognised by running it, never assumed.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

import torch
from torch import nn

from edgeslim.errors import UnsupportedGraphError, first_line
from edgeslim.exporter.plan import AxisPlan, PruningPlan
from edgeslim.exporter.trace import evaluating, flatten_outputs

RELATIVE_TOLERANCE = 1e-4
"""Largest difference between masked and compact output, relative to the largest output."""


def mask_state(state: Mapping[str, torch.Tensor], plan: PruningPlan) -> dict[str, torch.Tensor]:
    """A copy of a dense state with the cut indices of all masked axes set to zero."""
    masked = {name: tensor.detach().clone() for name, tensor in state.items()}
    _zero_cut(masked, plan)
    return masked


def hold_masks(module: nn.Module, plan: PruningPlan) -> None:
    """Zero the masked slices of a module's own tensors, in place."""
    with torch.no_grad():
        _zero_cut(module.state_dict(), plan)


def shrink_state(state: Mapping[str, torch.Tensor], plan: PruningPlan) -> dict[str, torch.Tensor]:
    """The part of a dense state that stays."""
    small = dict(state)
    for name, axes in _planned(small, plan):
        for axis in axes:
            small[name] = small[name].index_select(axis.axis, _index(axis.keep, small[name]))
    return {name: tensor.detach().clone() for name, tensor in small.items()}


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
    plan.check({name: tuple(tensor.shape) for name, tensor in dense.state_dict().items() if name in plan.initializers})
    masked = copy.deepcopy(dense)
    hold_masks(masked, plan)
    small = copy.deepcopy(dense)
    _shrink_in_place(small, plan)
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    for images in (example, noise):
        _compare(masked, small, images)
    return small


def with_tied_names(plan: PruningPlan, module: nn.Module) -> PruningPlan:
    """The plan, saying of every other name of a shared parameter or buffer what it says of the first.

    A tensor that two layers share is one initializer of the trace and two entries of a `state_dict`.
    """
    names: dict[int, list[str]] = {}
    for name, tensor in [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]:
        names.setdefault(id(tensor), []).append(name)
    tied = {
        other: plan.initializers[first]
        for shared in names.values()
        for first in shared
        if first in plan.initializers
        for other in shared
        if other not in plan.initializers
    }
    return dataclasses.replace(plan, initializers={**plan.initializers, **tied}) if tied else plan


def _zero_cut(state: Mapping[str, torch.Tensor], plan: PruningPlan) -> None:
    for name, axes in _planned(state, plan):
        for axis in axes:
            if axis.masked:
                state[name].index_fill_(axis.axis, _index(axis.cut, state[name]), 0)


def _planned(state: Mapping[str, torch.Tensor], plan: PruningPlan) -> list[tuple[str, tuple[AxisPlan, ...]]]:
    """The plan's initializers that are in a state; the others are constants of the graph."""
    return [(name, axes) for name, axes in plan.initializers.items() if name in state]


def _shrink_in_place(module: nn.Module, plan: PruningPlan) -> None:
    shared: dict[int, nn.Parameter] = {}
    for prefix, child in module.named_modules():
        changed, depthwise = False, _is_depthwise(child)
        for name, tensor in [*child.named_parameters(recurse=False), *child.named_buffers(recurse=False)]:
            axes = plan.initializers.get(f"{prefix}.{name}" if prefix else name, ())
            if not axes:
                continue
            changed = True
            small = tensor.detach()
            for axis in axes:
                small = small.index_select(axis.axis, _index(axis.keep, small))
            if isinstance(tensor, nn.Parameter):
                # A tensor used by two modules is one parameter before and one after.
                child._parameters[name] = shared.setdefault(
                    id(tensor), nn.Parameter(small, requires_grad=tensor.requires_grad)
                )
            else:
                child._buffers[name] = small
        if changed:
            _correct_widths(child, depthwise)


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and 1 < module.groups == module.in_channels


def _correct_widths(module: nn.Module, depthwise: bool) -> None:
    """Make the numbers a module keeps about its width agree with its tensors. depthwise: it was so before."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        before, module.out_channels = module.out_channels, module.weight.shape[0]
        if depthwise:
            module.groups = module.groups * module.out_channels // before  # the multiplier stays
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        module.in_channels, module.out_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        tensor = module.weight if module.weight is not None else module.running_mean
        module.num_features = tensor.shape[0] if tensor is not None else module.num_features
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.shape[0]


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
        limit = RELATIVE_TOLERANCE * max(float(b.abs().max()), 1e-6)
        if a.shape != b.shape or not bool(((a - b).abs() <= limit).all()):
            raise UnsupportedGraphError(
                f"{type(small).__name__}: the compact module does not compute what the masked one does",
                "it is trained masked instead; the exported graph is compact all the same",
            )


def _index(indices: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(indices, dtype=torch.long, device=like.device)
