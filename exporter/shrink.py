"""Shrink a torch module by a plan: the same class with fewer channels.

Parameters and buffers lose their cut indices, and the modules that repeat a width as a number (`out_channels`,
`num_features`, `groups`, ...) are corrected. Nothing is traced and nothing is pickled: a fresh instance of the class
and a plan are enough. It knows torch, as in the exporter only `trace` does, and is loaded on use.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from .plan import AxisPlan, PruningPlan


def shrink_module(module: nn.Module, plan: PruningPlan) -> nn.Module:
    """Take the cut channels out of `module`, in place, and return it.

    Whether its forward runs with fewer channels is not looked at. Raises PlanError if the plan belongs to another net.
    """
    state = module.state_dict()
    tied = with_tied_names(plan, module)
    tied.check({name: tuple(tensor.shape) for name, tensor in state.items()})
    shared: dict[int, nn.Parameter] = {}
    for prefix, child in module.named_modules():
        changed, depthwise = False, _is_depthwise(child)
        for name, tensor in [*child.named_parameters(recurse=False), *child.named_buffers(recurse=False)]:
            axes = tied.initializers.get(f"{prefix}.{name}" if prefix else name, ())
            if not axes:
                continue
            changed = True
            small = shrink_tensor(tensor.detach(), axes)
            if isinstance(tensor, nn.Parameter):
                # A tensor used by two modules is one parameter before and one after.
                child._parameters[name] = shared.setdefault(
                    id(tensor), nn.Parameter(small, requires_grad=tensor.requires_grad)
                )
            else:
                child._buffers[name] = small
        if changed:
            _correct_widths(child, depthwise)
    return module


def carry_optimizer(
    optimizer: torch.optim.Optimizer, before: nn.Module, after: nn.Module, plan: PruningPlan
) -> torch.optim.Optimizer:
    """Let an optimiser of `before` go on with the shrunk `after`: in place, so that a scheduler of its own goes along.

    Its parameters are replaced by those of the same names; what it remembers of each (momenta) loses the cut indices.
    Parameters of other modules stay as they are.
    """
    names = {id(parameter): name for name, parameter in before.named_parameters()}
    small = dict(after.named_parameters())
    tied = with_tied_names(plan, before)
    for group in optimizer.param_groups:
        for position, parameter in enumerate(group["params"]):
            name = names.get(id(parameter))
            if name is None:
                continue
            axes = tied.initializers.get(name, ())
            memory = optimizer.state.pop(parameter, {})
            group["params"][position] = small[name]
            optimizer.state[small[name]] = {
                key: shrink_tensor(value, axes)
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape
                else value
                for key, value in memory.items()
            }
    return optimizer


def shrink_tensor(tensor: torch.Tensor, axes: tuple[AxisPlan, ...]) -> torch.Tensor:
    """The part of a tensor that stays: every planned axis from its width to len(keep)."""
    for axis in axes:
        tensor = tensor.index_select(axis.axis, torch.tensor(axis.keep, dtype=torch.long, device=tensor.device))
    return tensor


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


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED)) and 1 < module.groups == module.in_channels


def _correct_widths(module: nn.Module, depthwise: bool) -> None:
    """Make the numbers a module keeps about its width agree with its tensors. depthwise: it was so before."""
    if isinstance(module, _CONVOLUTIONS):
        before, module.out_channels = module.out_channels, module.weight.shape[0]
        if depthwise:
            module.groups = module.groups * module.out_channels // before  # the multiplier stays
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, _TRANSPOSED):
        module.in_channels = module.weight.shape[0]
        module.groups = module.in_channels if depthwise else module.groups
        module.out_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):  # batch and instance norms
        tensor = module.weight if module.weight is not None else module.running_mean
        module.num_features = tensor.shape[0] if tensor is not None else module.num_features
    elif isinstance(module, nn.GroupNorm):
        before, module.num_channels = module.num_channels, module.weight.shape[0]
        module.num_groups = module.num_groups * module.num_channels // before  # whole groups leave
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.shape[0]
