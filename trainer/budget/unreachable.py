"""What to say of a target that no widths meet: every resource in its own unit, with the least that it can come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from edgeslim.errors import BudgetError

from .programme import OutOfReach, exceeds
from .targets import Limit, amount_in_words

_NO_LESS = "no allowed widths need less than"
_NO_LESS_SEEN = "of the plans that were tried none needs less than"
"""Blocks of memory are counted, plan by plan: nothing is proven of those that were not tried."""


def in_words(error: OutOfReach, limits: Sequence[Limit], dense: Mapping[str, float], share: float) -> BudgetError:
    """The error for whoever set the target. dense: what the dense net takes.  share: of the way that was to be gone."""
    wanted: dict[str, float] = {limit.resource: limit.at(dense[limit.resource], share) for limit in limits}
    alone = [name for name, least in error.least.items() if exceeds(least.bound, wanted[name])]
    said = "; ".join(
        f"{name} of {amount_in_words(name, wanted[name])} is asked for, "
        f"{_NO_LESS_SEEN if name == 'memory' else _NO_LESS} "
        f"{amount_in_words(name, error.least[name].bound)}, {error.least[name].bound / dense[name]:.3f} of the dense "
        "net's"
        for name in wanted
        if name in (alone or error.least)
    )
    target = ",".join(map(str, limits))
    narrower = "allow narrower widths (min_share, min_width, width_multiple)"
    if alone:
        enough = (
            f"{name}={math.ceil(min(1.0, error.least[name].bound / dense[name]) * 100) / 100:g}x" for name in alone
        )
        return BudgetError(f"{target} cannot be reached: {said}", f"ask for {', '.join(enough)} or more, or {narrower}")
    return BudgetError(
        f"{target} cannot be reached: some widths meet each limit, none were found that meet all: {said}",
        f"allow more of one of them, or {narrower}",
    )
