"""The width programme: its answers are the best there are, its refusals are right, its checker finds what is wrong."""

from __future__ import annotations

import dataclasses
import importlib
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.errors import BudgetError, InvariantError
from edgeslim.trainer.budget.programme import (
    Moment,
    OutOfReach,
    Problem,
    Solution,
    check_solution,
    exceeds,
    least,
    solve,
    usage,
)
from edgeslim.trainer.budget.programme.formulate import formulate
from edgeslim.trainer.budget.programme.problem import Costs, Counts

from .programmes import allowed, best, every, ladder, layer, problems, stairs, total, with_limits


def product(inputs: Counts, outputs: Counts) -> Costs:
    return np.asarray(inputs * outputs, np.float64)


def alone(inputs: Counts, outputs: Counts) -> Costs:
    return np.asarray(outputs, np.float64)


@settings(max_examples=50)
@given(problems())
def test_the_best_of_all_widths(problem: Problem) -> None:
    """Against every combination, counted; where none is allowed, against the least of every resource."""
    expected = best(problem)
    if expected is None:
        with pytest.raises(OutOfReach) as caught:
            solve(problem, gap=0.0)
        assert set(caught.value.least) == set(problem.limits)
        for name, found in caught.value.least.items():
            assert found.used == usage(problem, found.widths)[name]
            assert found.used == pytest.approx(min(usage(problem, widths)[name] for widths in every(problem)))
        return
    found = solve(problem, gap=1e-5)  # every step of these ladders is worth far more
    assert found.widths in allowed(problem)
    assert found.value == pytest.approx(expected, abs=1e-6)
    assert found.proven and found.gap < 2e-5
    check_solution(problem, found)


@settings(max_examples=25)
@given(problems(), st.floats(1e-4, 0.5))
def test_the_gap_is_kept(problem: Problem, gap: float) -> None:
    expected = best(problem)
    if expected is None:
        return
    stake = sum(own.values[-1] - own.values[0] for own in problem.ladders)
    found = solve(problem, gap=gap)
    assert found.proven
    assert expected - found.value <= min(gap, found.gap) * stake + 1e-6


@settings(max_examples=25)
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_layers_changes_nothing(problem: Problem, random: Random) -> None:
    charges = list(problem.charges)
    random.shuffle(charges)
    shuffled = dataclasses.replace(problem, charges=tuple(charges))
    ours, theirs = (formulate(each, each.resources) for each in (problem, shuffled))
    for name in problem.resources:
        for mine, other in zip(ours.usage[name], theirs.usage[name]):
            assert mine.offset == other.offset
            np.testing.assert_array_equal(mine.coefficients, other.coefficients)
    assert (ours.equalities != theirs.equalities).nnz == 0


def test_one_layer_by_hand() -> None:
    """8 -> 8, 8 -> 4, 4 -> 8 and 4 -> 4 channels; 40 MACs leave the second and the third, of which one keeps more."""
    problem = Problem(
        ladders=(ladder(4, 8), ladder(4, 8, values=(0.0, 3.0))),
        charges=(layer(total(1), total(0), macs=product),),
        limits={"macs": 40.0},
    )
    assert solve(problem, gap=0.0) == Solution(widths=(8, 4), value=8.0, usage={"macs": 32.0}, gap=0.0, proven=True)


def test_a_concatenation_of_three_is_counted_as_one_total() -> None:
    """What matters is the sum, in blocks of 4: 3 + 3 + 2 are two blocks, and 3 + 3 + 3 would be three."""
    three = (ladder(1, 2, 3), ladder(1, 2, 3), ladder(1, 2, 3, values=(1.0, 2.0, 2.5)))
    charge = layer(total(3), total(0, 1, 2), latency_us=stairs(4, 10.0))
    problem = Problem(ladders=(*three, ladder(4, 8)), charges=(charge,), limits={"latency_us": 40.0})
    assert solve(problem, gap=0.0).widths == (3, 3, 2, 8)


def test_one_family_on_both_sides_of_a_layer() -> None:
    """From f to f channels, and from f twice: squares, not products of two choices."""
    problem = Problem(
        ladders=(ladder(1, 2, 3, 4, 5),),
        charges=(layer(total(0), total(0), macs=product), layer(total(0), total(0, 0, constant=1), macs=product)),
        limits={"macs": 16.0 + 36.0},
    )
    assert solve(problem).widths == (4,)
    assert solve(with_limits(problem, {"macs": math.nextafter(52.0 * (1 - 1e-8), 0.0)})).widths == (3,)


def test_limits_that_are_met_exactly_are_met() -> None:
    """0.1 + 0.2 is above 0.3, by rounding alone."""
    problem = Problem(
        ladders=(ladder(1, 2), ladder(1, 2)),
        charges=tuple(layer(total(f), latency_us=lambda i, o, c=c: c * (o - 1)) for f, c in enumerate((0.1, 0.2))),
        limits={"latency_us": 0.3},
    )
    assert 0.1 + 0.2 > 0.3
    assert solve(problem, gap=0.0).widths == (2, 2)


NEARLY = {0: (0.0, 3e7, 5e7 + 7.0), 1: (0.0, 4e7, 5e7)}
"""Seven MACs too many of a hundred million: nothing to the solver, and too many."""


def nearly() -> Problem:
    """Two families that nearly fit at their widest, and one that has nothing to do with it."""
    charges = tuple(
        layer(total(family), macs=lambda i, o, costs=costs: np.array(costs)[o - 1]) for family, costs in NEARLY.items()
    )
    return Problem(ladders=(ladder(1, 2, 3),) * 3, charges=charges, limits={"macs": 1e8})


def test_a_limit_is_not_stepped_over_by_a_tolerance() -> None:
    """What the solver chose wrongly is excluded, and what it finds then is the best, proven."""
    assert exceeds(sum(costs[-1] for costs in NEARLY.values()), 1e8)
    found = solve(nearly(), gap=0.0)
    assert found.value == best(nearly()) == 8.0
    assert found.proven


@pytest.mark.parametrize(("margins", "proven"), [((0.0,), None), ((0.0, 2e-6), False), ((0.0, 0.0), True)])
def test_a_solver_that_steps_over_a_limit_is_found_out(
    margins: tuple[float, ...], proven: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked once, it did. A bound of tightened limits proves nothing."""
    monkeypatch.setattr(importlib.import_module(solve.__module__), "MARGINS", margins)
    if proven is None:
        with pytest.raises(InvariantError, match="100000007"):
            solve(nearly(), gap=0.0)
    else:
        assert solve(nearly(), gap=0.0).value == 8.0
        assert solve(nearly(), gap=0.0).proven == proven


def test_a_peak_is_not_stepped_over_either() -> None:
    """Whatever the families have that are not held then: they are not tried one by one."""
    problem = Problem(
        ladders=(ladder(3, 4, 5), ladder(*range(1, 9)), ladder(*range(1, 9))),
        moments={"peak_bytes": (Moment(per_channel={0: 64.0, 1: 0.0}), Moment(per_channel={2: 0.5}))},
        limits={"peak_bytes": 256.0 * (1 - 1e-7)},
    )
    found = solve(problem, gap=1e-5)
    assert found.widths == (3, 8, 8) and found.proven


def test_a_peak_is_the_largest_moment() -> None:
    """Families that are never held at once do not add up."""
    moments = (
        Moment(constant=4.0, per_channel={0: 2.0}),
        Moment(per_channel={1: 1.0, 2: 1.0}),
        Moment(per_channel={1: 1.0}),
    )
    problem = Problem(ladders=(ladder(2, 4, 8),) * 3, moments={"peak_bytes": moments}, limits={"peak_bytes": 12.0})
    found = solve(problem, gap=0.0)
    assert found.value == 4 + 12 and found.usage == {"peak_bytes": 12.0}
    assert least(problem, "peak_bytes").used == 8.0
    assert len(formulate(problem, ["peak_bytes"]).usage["peak_bytes"]) == 2  # the third says nothing new


def test_importance_that_stays_anyway_does_not_hide_the_rest() -> None:
    """What must stay may be given as a huge score: what the rest is worth still decides, to the last bit it has."""
    must = 1e9
    problem = Problem(
        ladders=(ladder(4, 8, values=(must, must + 1.0)), ladder(4, 8, values=(must, must + 1.001))),
        charges=(layer(total(0), macs=alone), layer(total(1), macs=alone)),
        limits={"macs": 12.0},
    )
    found = solve(problem)
    assert found.widths == (4, 8) and found.proven


def test_families_without_a_choice_and_limits_without_an_end() -> None:
    problem = Problem(
        ladders=(ladder(5),),
        charges=(layer(total(0), macs=alone, parameters=alone),),
        constants={"macs": 1.0},
        limits={"macs": 6.0, "parameters": math.inf},
    )
    assert solve(problem) == Solution(
        widths=(5,), value=5.0, usage={"macs": 6.0, "parameters": 5.0}, gap=0.0, proven=True
    )
    with pytest.raises(OutOfReach):
        solve(with_limits(problem, {"macs": 5.9}))
    assert solve(Problem(ladders=())).widths == ()


def test_without_limits_all_stays() -> None:
    problem = Problem(ladders=(ladder(4, 8), ladder(1, 2, 3)), charges=(layer(total(0), total(1), macs=product),))
    assert solve(problem).widths == (8, 3)


def test_out_of_reach_says_what_the_least_is() -> None:
    """Of a staircase that falls again the least is not at the narrowest width; the other limit can be met."""
    problem = Problem(
        ladders=(ladder(30, 31, 32),),
        charges=(layer(total(0), latency_us=lambda i, o: 100.0 + 50.0 * (o % 32), parameters=alone),),
        limits={"latency_us": 90.0, "parameters": 31.0},
    )
    with pytest.raises(OutOfReach, match=r"latency_us of 90 is asked for, no widths need less than 100") as caught:
        solve(problem)
    assert "parameters" not in caught.value.message
    assert caught.value.hint
    assert caught.value.least["latency_us"].widths == (32,)
    assert caught.value.least["parameters"].used == 30.0
    with pytest.raises(OutOfReach, match="together"):
        solve(with_limits(problem, {"latency_us": 100.0, "parameters": 31.0}))
    assert solve(with_limits(problem, {"latency_us": 100.0, "parameters": 32.0})).widths == (32,)


def test_no_time_is_an_error() -> None:
    problem = hard()
    with pytest.raises(BudgetError, match="within") as caught:
        solve(problem, seconds=1e-9)
    assert not isinstance(caught.value, OutOfReach)
    assert caught.value.hint


def hard(families: int = 12) -> Problem:
    """A chain of layers, each with its own scores."""
    rng = np.random.default_rng(0)
    own = tuple(ladder(*range(4, 52, 4), values=np.cumsum(rng.random(12)).tolist()) for _ in range(families))
    charges = tuple(layer(total(f + 1), total(f), latency_us=stairs(8, 1.0)) for f in range(families - 1))
    free = Problem(ladders=own, charges=charges)
    half = usage(free, [each.widths[-1] for each in own])["latency_us"] / 2
    return with_limits(free, {"latency_us": half})


@pytest.mark.parametrize(("seconds", "gap"), [(0.0, 0.1), (-1.0, 0.1), (math.nan, 0.1), (1.0, -0.1), (1.0, 1.0)])
def test_senseless_options_are_refused(seconds: float, gap: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        solve(Problem(ladders=()), seconds=seconds, gap=gap)


def test_there_is_no_least_of_what_is_not_counted() -> None:
    with pytest.raises(ValueError, match="no watts; there are macs"):
        least(Problem(ladders=(), constants={"macs": 1.0}), "watts")


PLANTED = {
    "another width": ({"widths": (4, 4)}, "do not use"),
    "a width that is not allowed": ({"widths": (8, 5)}, "none of this problem"),
    "a family too few": ({"widths": (8,)}, "none of this problem"),
    "less used": ({"usage": {"macs": 31.0, "parameters": 12.0}}, r"macs.*31.0, 32.0"),
    "something not said": ({"usage": {"macs": 32.0}}, r"parameters.*None, 12.0"),
    "more kept": ({"value": 8.5}, "keep 8.0"),
    "over a limit": ({"widths": (8, 8), "value": 11.0, "usage": {"macs": 64.0, "parameters": 16.0}}, "break limits"),
    "a gap below nothing": ({"gap": -0.1}, "gap"),
    "a gap that is no number": ({"gap": math.nan}, "gap"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_solution_that_was_tampered_with_is_found(fault: str) -> None:
    charge = layer(total(1), total(0), macs=product, parameters=lambda i, o: i + o)
    problem = Problem(ladders=(ladder(4, 8), ladder(4, 8, values=(0.0, 3.0))), charges=(charge,), limits={"macs": 40.0})
    sound = solve(problem, gap=0.0)
    check_solution(problem, sound)
    changes, message = PLANTED[fault]
    with pytest.raises(InvariantError, match=message):
        check_solution(problem, dataclasses.replace(sound, **changes))


def test_layers_between_the_same_families_share_a_table() -> None:
    """A residual net's two layers of a block, to and fro: as many columns as one of them, whatever is counted."""
    families = (ladder(1, 2, 3), ladder(1, 2, 3, 4))
    there, back = layer(total(1), total(0), macs=product), layer(total(0), total(1), macs=product, latency_us=product)
    one = formulate(Problem(ladders=families, charges=(there,)), ["macs"])
    both = formulate(Problem(ladders=families, charges=(there, back)), ["macs", "latency_us"])
    assert one.columns == both.columns == 3 + 4 + 12


def test_a_cost_that_each_side_says_alone_needs_no_table() -> None:
    charge = layer(total(1), total(0), macs=lambda i, o: 3.0 * i + o % 2)
    assert formulate(Problem(ladders=(ladder(1, 2), ladder(1, 2)), charges=(charge,)), ["macs"]).columns == 4


def test_sums_of_the_same_beginning_share_it() -> None:
    """0 + 1 and 0 + 1 + 2, as a densely connected net has them: the pair of 0 and 1 is there once."""
    families = (ladder(1, 2),) * 5
    first = layer(total(3), total(0, 1), macs=product)
    second = layer(total(4), total(0, 1, 2), macs=product)
    alone_ = formulate(Problem(ladders=families, charges=(second,)), ["macs"]).columns
    # x; (0, 1) and its 3 sums; (0 + 1, 2) and its 4; (0 + 1 + 2, 4)
    assert alone_ == 10 + 4 + 3 + 6 + 4 + 8
    # and (0 + 1, 3)
    assert formulate(Problem(ladders=families, charges=(first, second)), ["macs"]).columns == alone_ + 6


def test_a_limit_is_met_where_sums_are_rounded_beside_huge_constants() -> None:
    """The constant is met by as much as the sum is rounded; a channel more is far more than that."""
    problem = Problem(
        ladders=(ladder(1, 2),),
        charges=(layer(total(0), macs=lambda i, o: 0.1 * o),),
        constants={"macs": 4e8 - 0.1},
        limits={"macs": math.nextafter(4e8, 0.0)},
    )
    assert solve(problem, gap=0.0).widths == (2,)  # 0.1 in 400 million: below what counts
    assert solve(with_limits(problem, {"macs": 4e8 - 0.35}), gap=0.0).widths == (1,)
