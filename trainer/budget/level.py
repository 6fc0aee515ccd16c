"""Budgets between the dense net and a recipe's: the same kind of budget, part of the way.

With k the share that a budget keeps of the dense net (of its MACs, of every family's channels), the budget that is
`share` in (0, 1] of the way to it keeps

    k^share

and of an absolute amount, such as milliseconds, the same part of the way on a logarithmic scale. It is the law by which
a schedule nears a budget in equal ratios (`schedules.iterative`). To a new kind of budget belongs a branch in
`with_level` and one in `level_name`; the type checker misses them.
"""

from __future__ import annotations

from edgeslim.errors import ConfigError

from ..recipe import BudgetSpec, MacsBudget
from ..recipe_target import TargetBudget
from .targets import parse_target

_DIGITS = 4
"""Of a level's number, so that its name says all of it."""


def with_level(budget: BudgetSpec, share: float) -> BudgetSpec:
    """The budget `share` of the way from the dense net to `budget`, which is itself at 1.

    Its number is rounded to four digits. Raises ConfigError where that leaves nothing to prune.
    """
    if share == 1.0:
        return budget
    if isinstance(budget, MacsBudget):
        return budget.model_copy(update={"keep": _rounded(budget.keep, share)})
    if isinstance(budget, TargetBudget):
        return budget.model_copy(update={"part": budget.part * share})
    return budget.model_copy(update={"ratio": round(1.0 - _rounded(1.0 - budget.ratio, share), _DIGITS)})


def level_name(budget: BudgetSpec) -> str:
    """How a budget is called in names of files and nets: "macs-0.26"."""
    if isinstance(budget, MacsBudget):
        return f"macs-{budget.keep:.{_DIGITS}g}"
    if isinstance(budget, TargetBudget):
        limits = parse_target(budget.target)
        if all(limit.relative for limit in limits):
            return "-".join(f"{limit.resource}-{limit.amount**budget.part:.{_DIGITS}g}x" for limit in limits)
        return "-".join([*(str(limit).replace("=", "-") for limit in limits), f"part-{budget.part:.{_DIGITS}g}"])
    return f"ratio-{budget.ratio:.{_DIGITS}g}"


def _rounded(kept: float, share: float) -> float:
    """The share that is kept at a level, in (0, 1)."""
    level = round(float(kept**share), _DIGITS)
    if not 0.0 < level < 1.0:
        raise ConfigError(
            f"a budget that keeps {kept:.4g} of the dense net has no level {share:.3g} of the way to it: with "
            f"{_DIGITS} digits that keeps {level:g}",
            "ask for fewer points, or a budget that is further away",
        )
    return level
