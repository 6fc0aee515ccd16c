"""Levels between the dense net and a budget."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.errors import ConfigError
from edgeslim.trainer.budget import level_name, with_level
from edgeslim.trainer.budget.targets import parse_target
from edgeslim.trainer.recipe import BudgetSpec, MacsBudget, RatioBudget
from edgeslim.trainer.recipe_target import TargetBudget

KEPT = st.floats(0.05, 0.95)
COUNTS = st.integers(2, 9)


def budgets(kept: float) -> tuple[BudgetSpec, ...]:
    """The last is part of the way itself."""
    return (
        MacsBudget(name="macs", keep=kept, min_share=0.1),
        RatioBudget(name="ratio", ratio=1.0 - kept),
        TargetBudget(name="target", target=f"latency={kept:.6f}x"),
        TargetBudget(name="target", target=f"macs={kept * kept:.8f}x,memory<1MB", part=0.5),
    )


def kept_of(budget: BudgetSpec) -> float:
    if isinstance(budget, TargetBudget):
        return parse_target(budget.target)[0].amount ** budget.part
    return budget.keep if isinstance(budget, MacsBudget) else 1.0 - budget.ratio


@given(KEPT, COUNTS)
def test_levels_are_geometric_and_end_at_the_budget(kept: float, count: int) -> None:
    for budget in budgets(kept):
        levels = [with_level(budget, number / count) for number in range(1, count + 1)]
        assert levels[-1] == budget
        for number, level in enumerate(levels, start=1):
            assert kept_of(level) == pytest.approx(math.pow(kept, number / count), abs=6e-5)
            assert type(level).model_validate(level.model_dump()) == level


@given(KEPT, COUNTS)
def test_a_front_of_twice_as_many_has_the_levels_of_the_smaller_one(kept: float, count: int) -> None:
    for budget in budgets(kept):
        few = {level_name(with_level(budget, n / count)) for n in range(1, count + 1)}
        assert few <= {level_name(with_level(budget, n / (2 * count))) for n in range(1, 2 * count + 1)}


def test_the_name_of_a_level_says_all_of_it() -> None:
    macs, ratio = (with_level(budget, 0.5) for budget in budgets(0.5)[:2])
    assert isinstance(macs, MacsBudget) and isinstance(ratio, RatioBudget)
    assert (level_name(macs), macs.keep, macs.min_share) == ("macs-0.7071", 0.7071, 0.1)
    assert (level_name(ratio), ratio.ratio) == ("ratio-0.2929", 0.2929)
    whole = TargetBudget(name="target", target="latency=0.25x")
    assert level_name(with_level(whole, 0.5)) == "latency-0.5x"
    assert level_name(with_level(whole.model_copy(update={"part": 0.5}), 0.5)) == "latency-0.7071x"
    absolute = TargetBudget(name="target", target="latency=8ms,memory<64MB", part=0.5)
    assert level_name(with_level(absolute, 0.5)) == "latency-8ms-memory-64MB-part-0.25"


def test_a_level_that_keeps_everything_is_none() -> None:
    with pytest.raises(ConfigError, match=r"keeps 0\.9999 of the dense net has no level 0\.1 of the way"):
        with_level(MacsBudget(name="macs", keep=0.9999), 0.1)
