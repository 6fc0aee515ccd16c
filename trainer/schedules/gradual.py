"""Gradual pruning: when channels are cut while a net trains, and what presses on those that go next.

    |--- dense warm-up ---|--- interval 1 ---|- ... -|--- interval K ---|--- training at the final width ---|
                        at[0]              at[1]                      at[K]

At the beginning of interval k the units that would go next, by the criterion's scores of the moment and the budget at
share_k of its way, become candidates. While the interval's n steps are taken their weights are multiplied, after the
optimiser's i-th step, by r(i/n) / r((i-1)/n), where

    r(u) = exp(-pressure * u^2)

would be left of them if nothing else moved them: the pull -dr/r = 2 pressure u du grows evenly from nothing, does not
depend on the number of steps, and leaves exp(-pressure) at the end. There they are cut, and the next interval begins.
share_k is the part of the way to the budget after cut k, as in rounds (`iterative`).

Source: that redundant filters are found and pruned in one training scheme, in which sparsity promotion minimises their
effect, is known of Khan et al., ICONIP 2022 (arXiv 2210.07451), from its abstract; its schedule is not, and this is a
reconstruction. That filters chosen beforehand get a penalty that grows until they are removed is known of growing
regularisation (Wang et al., ICLR 2021, arXiv 2012.09243), which adds a growing l2 penalty to the loss, for filters
chosen once. Several cuts, candidates chosen anew for each, a shrinking decoupled from the optimiser, and its law r are
ours. The shares are those of gradual pruning (Zhu & Gupta 2017).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from .iterative import Law, share_gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradual:
    """When and how far; see the module docstring. at: in steps taken, ascending, where each interval begins and ends.

    pressure: 0 is none; candidates are then chosen when they are cut, for nothing happens to them before.
    """

    at: tuple[int, ...]
    law: Law = "polynomial"
    power: float = 3.0
    pressure: float = 5.0

    @property
    def last(self) -> int:
        """With this step the net has its final width."""
        return self.at[-1]

    def interval(self, taken: int) -> int | None:
        """The number, from 1, of the interval to which the `taken`-th step belongs; None before the first and after."""
        number = bisect_left(self.at, taken)
        return number if 0 < number < len(self.at) else None

    def share(self, number: int) -> float:
        """The part of the way to the budget after cut `number`, from 1, in (0, 1]."""
        return share_gone(number / (len(self.at) - 1), self.law, self.power)

    def factor(self, taken: int) -> float:
        """In (0, 1], what candidates are multiplied by after the `taken`-th step, one of an interval."""
        number = bisect_left(self.at, taken)
        begin, end = self.at[number - 1], self.at[number]
        return math.exp(-self.pressure * (2 * (taken - begin) - 1) / (end - begin) ** 2)
