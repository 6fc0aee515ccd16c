"""The processes of one run, and what they tell each other.

Every process (a *rank*, counted from 0) walks through the whole training half of a run. They stay together because each
step depends only on what all of them have: the recipe, the same weights, sums over all ranks, and what the first one
found out and told the others. A run of one process is the case `ALONE`, in which nothing here does anything.

All calls but `own` are collective: every rank makes them, in the same order. Objects travel as torch sends them, by
pickle: between the processes of one run, and never into a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from edgeslim.errors import EdgeslimError

from .launch import Launch

T = TypeVar("T")
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """rank: this process.  launch: how many there are, and how they share the work."""

    rank: int = 0
    launch: Launch = field(default_factory=Launch)

    @property
    def world(self) -> int:
        """The number of processes."""
        return self.launch.processes

    @property
    def first(self) -> bool:
        """Whether this is the one that writes, exports, measures and talks."""
        return self.rank == 0

    def own(self, each: int) -> slice:
        """What belongs to this rank of `world * each` things in a row."""
        return slice(self.rank * each, (self.rank + 1) * each)

    def total(self, part: Tensor) -> Tensor:
        """The sum over all ranks, with gradients: of the sum of all ranks' losses, as DDP's mean of them wants it."""
        return part if self.world == 1 else cast(Tensor, _Total.apply(part))  # type: ignore[no-untyped-call]

    def mean(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The mean over all ranks, of the same names."""
        if self.world == 1:
            return dict(numbers)
        values = torch.tensor([*numbers.values()], dtype=torch.float64)
        dist.all_reduce(values)
        return dict(zip(numbers, (values / self.world).tolist()))

    def sum_arrays(self, arrays: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        """The sums over all ranks of arrays that have the same shapes everywhere."""
        if self.world == 1 or not arrays:
            return list(arrays)
        flat = torch.from_numpy(np.concatenate([np.ravel(a) for a in arrays]))
        dist.all_reduce(flat)
        ends = np.cumsum([a.size for a in arrays])[:-1]
        return [part.reshape(a.shape) for part, a in zip(np.split(flat.numpy(), ends), arrays)]

    def from_first(self, compute: Callable[[], T]) -> T:
        """What `compute` gives on the first rank, for all. It makes no collective call, for nobody else runs it.

        An EdgeslimError is raised on all ranks.
        """
        if self.world == 1:
            return compute()
        told: list[Any] = [None, None]
        if self.first:
            try:
                told = [compute(), None]
            except EdgeslimError as error:
                dist.broadcast_object_list([None, error], src=0, device=_CPU)
                raise
        dist.broadcast_object_list(told, src=0, device=_CPU)
        if isinstance(told[1], EdgeslimError):
            raise told[1]
        return cast(T, told[0])

    def gather(self, text: str) -> list[str]:
        """What every rank says, in their order."""
        if self.world == 1:
            return [text]
        texts = [""] * self.world
        dist.all_gather_object(texts, text)
        return texts


ALONE = Ranks()
"""One process, as most runs are."""


class _Total(torch.autograd.Function):
    """A sum over ranks. Each rank's part is in every rank's sum, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: object, part: Tensor) -> Tensor:
        whole = part.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        whole = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(whole)
        return whole
