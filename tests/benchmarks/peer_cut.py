"""A net cut by Torch-Pruning 1.6.1 as its documents have it: one shot, magnitudes of groups, one share everywhere."""

from __future__ import annotations

import copy

import torch
from torch import nn

from edgeslim.trainer.models.cifar_resnet import CifarResNet


def cut_by_torch_pruning(net: nn.Module, example: torch.Tensor, ratio: float, round_to: int | None = None) -> nn.Module:
    """A smaller copy. ratio: of every layer's channels, that goes.  round_to: kept widths are multiples of it.

    On shortcuts that pad channels Torch-Pruning is silently wrong: of a CIFAR ResNet only the channels inside blocks
    are offered to it.
    """
    import torch_pruning as tp

    small = copy.deepcopy(net)
    for parameter in small.parameters():
        parameter.requires_grad_(True)
    pruner = tp.pruner.MagnitudePruner(
        small,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=_ignored(small),
        round_to=round_to,
    )
    pruner.step()
    return small.eval()


def _ignored(net: nn.Module) -> list[nn.Module]:
    """The last layer, and in a CIFAR ResNet what lies on the shortcuts."""
    layers = {name: module for name, module in net.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    if isinstance(net, CifarResNet):
        return [module for name, module in layers.items() if not name.endswith(".conv1")]
    return [list(layers.values())[-1]]
