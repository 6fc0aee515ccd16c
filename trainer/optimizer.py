"""The optimiser of a training run, and its learning rate as a function of the step.

lr(t) = lr * (t + 1) / (warmup + 1)                           for t < warmup
lr(t) = lr * (1 + cos(pi * (t - warmup) / (T - warmup))) / 2  afterwards
"""

from __future__ import annotations

import math

import torch
from torch import nn

from .recipe import FitSection


def build_optimizer(module: nn.Module, section: FitSection) -> torch.optim.Optimizer:
    """The optimiser that a recipe asks for, over the parameters that learn."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    if section.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=section.lr, momentum=0.9, nesterov=True, weight_decay=section.weight_decay
        )
    kind = torch.optim.Adam if section.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=section.lr, weight_decay=section.weight_decay)


def learning_rate(section: FitSection, step: int) -> float:
    """The rate of a step (0-based); see the module docstring."""
    if step < section.warmup_steps:
        return section.lr * (step + 1) / (section.warmup_steps + 1)
    along = (step - section.warmup_steps) / max(section.steps - section.warmup_steps, 1)
    return section.lr * 0.5 * (1.0 + math.cos(math.pi * along))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let all parameters learn at `rate` from now on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
