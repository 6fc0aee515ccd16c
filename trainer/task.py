"""What is learnt: the task of a training run, and the two places where more can take part in its steps.

    total loss of a step = task.loss(logits, targets) + sum of term(step) over the terms, each logged by its name
    after_step(step)       once the optimiser has moved the weights

A target is what the net should say of an image: a mask in segmentation, a class in classification (see `kinds`).
A penalty on weights and a teacher are terms. What holds masks comes after the step, and so does what
cuts while training goes on (a `Cutter`, whose plan and memory are saved with the run).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from torch import Tensor, nn
from torch.utils.data import Dataset

from edgeslim.exporter.plan import PruningPlan

from .checkpoint import State

Batch = tuple[Tensor, Tensor]
Numbers = Mapping[str, float]
Scores = dict[str, float | None]
"""What was scored, by name; None where there was nothing to score."""
NO_CLASS = -100
"""The `ignore_index` of a task whose targets all count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is learnt, from what, and how success is measured.

    draws: draw number -> (image (channels, h, w) uint8, target int64), without end.
    prepare: that batch, on the device -> (normalised images float32, targets), randomly augmented.
    loss: (logits, targets) -> scalar. evaluate: module -> scores on the validation images.
    score: the entry of `evaluate` that early stopping and the choice of the best weights go by, higher = better.
    ignore_index: the value of targets that count nowhere.
    """

    draws: Dataset[Batch]
    prepare: Callable[[Tensor, Tensor], Batch]
    loss: Callable[[Tensor, Tensor], Tensor]
    evaluate: Callable[[nn.Module], Numbers]
    score: str
    ignore_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a training run, as terms and what comes after the step see it. Tensors are on the run's device.

    number: from 0.  rate: the learning rate.  module: the net in training.  images: (N, channels, h, w) float32,
    normalised and augmented.  targets: (N, h, w) or (N,) int64.  logits: (N, classes, h, w) or (N, classes) float, with
    gradients.
    autocast: the run's precision as a context, for a term that runs another net.
    """

    number: int
    rate: float
    module: nn.Module
    images: Tensor
    targets: Tensor
    logits: Tensor
    autocast: Callable[[], AbstractContextManager[None]]


Term = Callable[[Step], Tensor]
"""Added to the task's loss in every step: a scalar. One without gradients is only logged."""

NO_TERMS: Mapping[str, Term] = MappingProxyType({})
"""The task's loss alone."""

AfterStep = Callable[[Step], None]
"""Called after every step, when the weights have moved."""


class Cutter(Protocol):
    """Cuts channels while a run goes on. Called after every step, last of all; its state is in the run's checkpoint."""

    @property
    def last(self) -> int:
        """With this step the net has its final width: weights of before are never the best."""
        ...

    @property
    def plan(self) -> PruningPlan:
        """What is cut so far."""
        ...

    def __call__(self, step: Step) -> None:
        """Do what is due after this step."""
        ...

    def memory(self) -> tuple[State, Numbers]:
        """What a resumed run needs beside the plan."""
        ...

    def recall(self, module: nn.Module, plan: PruningPlan | None, tensors: State, numbers: Numbers) -> None:
        """Go on from there; `module` has the weights of then."""
        ...
