"""Prune one family after the other, from the first layer to the last, a little at a time.

    for every family:  score, cut the lowest `share` of its width, recover; again, until it has its final width

The final widths are what the budget asks for by the scores of the dense net. Which units go is decided anew before
every cut, for the layers before have changed what they carry.

Source: Wang & Zhu 2019 (arXiv 1812.03608) prune recursively, layer by layer, with a short fine-tuning after each step.
That the widths come from a budget over all layers, and the order of coupled layers (by the first of them), are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..budget import Budget, spare_one
from ..pruned import PrunedModel
from .scoring import Recover, Scoring, nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Layerwise:
    """share: of a family's dense width, cut in one step, in (0, 1]."""

    share: float = 0.25

    def prune(self, net: PrunedModel, scoring: Scoring, budget: Budget, recover: Recover = nothing) -> None:
        """Cut `net` down to its budget, with `recover(net, step)` after all steps but the last.

        Raises ConfigError for a criterion whose scores are none, BudgetError for a budget out of reach.
        """
        final = scoring.choose(net, budget)
        steps = self._steps(net, final)
        for number, (labels, leaving) in enumerate(steps, start=1):
            scores = scoring.scores(net)
            mine = np.isin(net.channels.unit_labels, labels) & np.isfinite(scores)
            order = np.flatnonzero(mine)[np.argsort(scores[mine], kind="stable")]
            chosen = frozenset(net.channels.unit_labels[order[:leaving]].tolist())
            net.apply_cut(spare_one(net.channels, chosen | net.cut, scores))
            if number < len(steps):
                recover(net, number)

    def _steps(self, net: PrunedModel, final: frozenset[int]) -> list[tuple[NDArray[np.int64], int]]:
        """The labels of a family, and how many of its units leave, step by step."""
        gone, steps = net.cut, []
        for family in net.channels.families:
            left = sum(label in final and label not in gone for label in family.labels.tolist())
            most = max(1, math.ceil(self.share * family.width))
            steps += [(family.labels, min(most, left - done)) for done in range(0, left, most)]
        return steps
