"""Prune in rounds: score, cut a further share, let the net recover, score again.

    geometric     share_k = k / K                    each round keeps the same fraction of what the round before left
    polynomial    share_k = 1 - (1 - k / K)^power    much early, while there is much to spare, and little at the end

share_k is the part of the way to the budget, on a logarithmic scale, that has been gone after round k of K. Scores are
taken anew in every round, because what a channel carries changes when its neighbours go.

Source: the polynomial law is that of gradual pruning (Zhu & Gupta 2017, arXiv 1710.01878, power 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..budget import Budget
from ..pruned import PrunedModel
from .scoring import Recover, Scoring, nothing

Law = Literal["geometric", "polynomial"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Iterative:
    """`rounds` rounds under `law`; one round is one shot."""

    rounds: int = 1
    law: Law = "geometric"
    power: float = 3.0

    def prune(self, net: PrunedModel, scoring: Scoring, budget: Budget, recover: Recover = nothing) -> None:
        """Cut `net` down to its budget, with `recover(net, round)` after all rounds but the last.

        Raises ConfigError for a criterion whose scores are none, BudgetError for a budget out of reach.
        """
        for number in range(1, self.rounds + 1):
            net.apply_cut(scoring.choose(net, budget, self.share(number)))
            if number < self.rounds:
                recover(net, number)

    def share(self, number: int) -> float:
        """The part of the way after round `number`, from 1, in (0, 1]."""
        return share_gone(number / self.rounds, self.law, self.power)


def share_gone(along: float, law: Law, power: float) -> float:
    """The part of the way to the budget when `along` in [0, 1] of the cuts have been made; see the module docstring."""
    return along if law == "geometric" else 1.0 - (1.0 - along) ** power
