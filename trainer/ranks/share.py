"""One rank's share of what a training run does: its draws, its task, its part of the calibration.

Step s of W ranks with batches of B takes the draws s W B ... (s + 1) W B - 1, which one process with batches of W B
would take; rank r has those from s W B + r B on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.channels.labels import Ids

from ..budget import Budget
from ..budget.reached import Reached
from ..criteria import Criterion
from ..criteria.protocol import AddsUp, LooksAt
from ..criteria.units import Pooling, Scored, Scores
from ..lesson import BATCH, Learning
from ..task import Batch, Task
from .group import Ranks


@runtime_checkable
class _Reducible(Protocol):
    """A loss that is no mean over images, and can be computed from sums over all ranks."""

    def across(self, total: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]: ...


class Draws(Sampler[int]):
    """The numbers of one rank's draws from step `first` to before step `last`, in order."""

    def __init__(self, ranks: Ranks, first: int, last: int, batch: int) -> None:
        self._ranks, self._first, self._last, self._batch = ranks, first, last, batch

    def __iter__(self) -> Iterator[int]:
        whole, own = self._ranks.world * self._batch, self._ranks.own(self._batch)
        for step in range(self._first, self._last):
            yield from range(step * whole + own.start, step * whole + own.stop)

    def __len__(self) -> int:
        return (self._last - self._first) * self._batch


def share_task(task: Task, ranks: Ranks) -> Task:
    """The task for one rank: what its loss sums up is summed up over all ranks.

    A loss that knows nothing of sums is a mean over images, and DDP's mean over ranks is all it takes. Augmentation
    has drawn the same random numbers everywhere; what draws later (dropout) draws others on every rank.
    """
    if ranks.world == 1:
        return task

    def prepare(images: Tensor, targets: Tensor) -> Batch:
        batch = task.prepare(images, targets)
        torch.manual_seed(torch.initial_seed() + ranks.rank)
        return batch

    loss = task.loss.across(ranks.total) if isinstance(task.loss, _Reducible) else task.loss
    return dataclasses.replace(task, prepare=prepare, loss=loss)


def share_criterion(rule: Criterion, ranks: Ranks) -> Criterion:
    """The criterion for one rank: it scores as it would alone, and all ranks have the same scores to the last bit.

    Where scores add up over images every rank looks at its own. All other scores are the first rank's.
    """
    return rule if ranks.world == 1 else _SharedCriterion(rule=rule, ranks=ranks)


def share_budget(build: Callable[[], Budget], ranks: Ranks) -> Budget:
    """The budget for one rank: the first one plans, which may mean to measure, and all have its plan.

    build: what makes the budget; on the other ranks it is not called, for the device need not be there.
    """
    return build() if ranks.world == 1 else _SharedBudget(build=build, ranks=ranks)


@dataclass(kw_only=True)
class _SharedBudget:
    build: Callable[[], Budget]
    ranks: Ranks
    reached: Reached | None = None
    budget: Budget | None = None
    """The first rank's."""

    def select(self, channels: ChannelMap, scores: Scores, share: float = 1.0) -> frozenset[int]:
        """See `Budget`."""

        def plan() -> tuple[frozenset[int], Reached | None]:
            if self.budget is None:
                self.budget = self.build()
            return self.budget.select(channels, scores, share), self.budget.reached

        cut, self.reached = self.ranks.from_first(plan)
        return cut


@dataclass(frozen=True, slots=True, kw_only=True)
class _SharedCriterion:
    rule: Criterion
    ranks: Ranks

    @property
    def name(self) -> str:
        return self.rule.name

    @property
    def looks_at(self) -> LooksAt:
        return self.rule.looks_at

    def score(self, net: Scored, images: NDArray[np.float32]) -> Scores:
        """See `Criterion`. images: the same on all ranks."""
        rule = self.rule
        if not (isinstance(rule, AddsUp) and rule.adds_up):
            return self.ranks.from_first(lambda: rule.score(net, images))
        # In whole batches of gradients: the criterion takes absolute values of their sums.
        mine = np.flatnonzero(np.arange(len(images)) // BATCH % self.ranks.world == self.ranks.rank)
        if isinstance(net, Learning) and net.lesson.targets is not None:
            net = dataclasses.replace(
                net, lesson=dataclasses.replace(net.lesson, targets=net.lesson.targets[torch.from_numpy(mine)])
            )
        pool = _SummedPooling(
            reduction=rule.pool.reduction,
            normalisation=rule.pool.normalisation,
            ranking=rule.pool.ranking,
            ranks=self.ranks,
        )
        scores = cast(Criterion, dataclasses.replace(cast(Any, rule), pool=pool)).score(net, images[mine])
        # The sums are the same everywhere; what a processor of another kind makes of them may differ in the last bit.
        return self.ranks.from_first(lambda: scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SummedPooling(Pooling):
    """Sums over all ranks what was observed of channels, before anything is divided."""

    ranks: Ranks

    def over_units(self, channels: ChannelMap, observed: Iterable[tuple[Ids, Scores]]) -> Scores:
        pairs = list(observed)
        totals = self.ranks.sum_arrays([scores for _, scores in pairs])
        return Pooling.over_units(self, channels, [(ids, total) for (ids, _), total in zip(pairs, totals)])
