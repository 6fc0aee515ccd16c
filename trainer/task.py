"""What is learnt: the task of a training run, and the two places where more can take part in its steps.

    total loss of a step = task.loss(logits, masks) + sum of term(step) over the terms, each logged by its name
    after_step(step)       once the optimiser has moved the weights

A penalty on weights and a teacher are terms. What holds masks, or cuts while training goes on, comes after the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor, nn
from torch.utils.data import Dataset

Batch = tuple[Tensor, Tensor]
Numbers = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is learnt, from what, and how success is measured.

    draws: draw number -> (image (3, h, w) uint8, mask (h, w) int64), without end.
    prepare: that batch, on the device -> (normalised images float32, masks), randomly augmented.
    loss: (logits, masks) -> scalar. evaluate: module -> scores on the validation images.
    score: the entry of `evaluate` that early stopping and the choice of the best weights go by, higher = better.
    """

    draws: Dataset[Batch]
    prepare: Callable[[Tensor, Tensor], Batch]
    loss: Callable[[Tensor, Tensor], Tensor]
    evaluate: Callable[[nn.Module], Numbers]
    score: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a training run, as terms and what comes after the step see it. Tensors are on the run's device.

    number: from 0.  rate: the learning rate.  module: the net in training.  images: (N, 3, h, w) float32, normalised
    and augmented.
    masks: (N, h, w) int64.  logits: (N, classes, h, w) float, with gradients.
    autocast: the run's precision as a context, for a term that runs another net.
    """

    number: int
    rate: float
    module: nn.Module
    images: Tensor
    masks: Tensor
    logits: Tensor
    autocast: Callable[[], AbstractContextManager[None]]


Term = Callable[[Step], Tensor]
"""Added to the task's loss in every step: a scalar. One without gradients is only logged."""

NO_TERMS: Mapping[str, Term] = MappingProxyType({})
"""The task's loss alone."""

AfterStep = Callable[[Step], None]
"""Called after every step, when the weights have moved."""
