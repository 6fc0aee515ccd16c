"""What a width programme is made of: refused at birth where it is wrong, counted exactly, quiet on stdout."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings

from edgeslim.trainer.budget.programme import (
    Ladder,
    Moment,
    Problem,
    Total,
    exceeds,
    solve,
    usage,
    value,
)
from edgeslim.trainer.budget.programme.problem import Costs, Counts
from edgeslim.trainer.budget.programme.silence import stray_lines_dropped

from .programmes import ladder, layer, problems, total


def nothing(inputs: Counts, outputs: Counts) -> Costs:
    return np.zeros(outputs.shape)


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "no width": (lambda: Ladder(widths=(), values=()), "0 widths"),
    "a value too few": (lambda: Ladder(widths=(1, 2), values=(1.0,)), "2 widths and 1 values"),
    "a width of nothing": (lambda: ladder(0, 1), "at least 1"),
    "widths out of order": (lambda: ladder(2, 1, values=(1, 2)), "ascend"),
    "a width twice": (lambda: ladder(2, 2), "ascend"),
    "a wider net that keeps less": (lambda: ladder(1, 2, values=(2, 1)), "not descend"),
    "an infinite value": (lambda: ladder(1, 2, values=(1, math.inf)), "finite"),
    "a negative constant": (lambda: Total(constant=-1), "constant >= 0"),
    "a family that takes part no time": (lambda: Total(coefficients={0: 0}), "coefficients >= 1"),
    "a moment that shrinks with width": (lambda: Moment(per_channel={0: -1.0}), "at least 0"),
    "a moment of no size": (lambda: Moment(constant=math.nan), "finite"),
    "a layer of an unknown family": (
        lambda: Problem(ladders=(ladder(1),), charges=(layer(total(2), name="conv", macs=nothing),)),
        r"conv depends on families \[2\]; there are 0 to 0",
    ),
    "a moment of an unknown family": (
        lambda: Problem(ladders=(ladder(1),), moments={"peak_bytes": (Moment(per_channel={-1: 1.0}),)}),
        r"peak_bytes depends on families \[-1\]",
    ),
    "both a sum and a peak": (
        lambda: Problem(ladders=(), constants={"bytes": 1.0}, moments={"bytes": (Moment(),)}),
        "either charged or a peak",
    ),
    "a peak of no moments": (lambda: Problem(ladders=(), moments={"bytes": ()}), "no moments"),
    "an infinite constant": (lambda: Problem(ladders=(), constants={"macs": math.inf}), "finite"),
    "a limit on nothing": (
        lambda: Problem(ladders=(), constants={"macs": 1.0}, limits={"watts": 1.0}),
        "watts.*of macs",
    ),
    "a limit that is no number": (
        lambda: Problem(ladders=(), constants={"macs": 1.0}, limits={"macs": math.nan}),
        "limits are numbers",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_at_birth(case: str) -> None:
    make, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        make()


def test_costs_that_are_none_are_refused_by_name() -> None:
    """By the layer, the resource and the widths: that is what a table was made wrong for."""
    holes = layer(total(0), name="conv", latency_us=lambda i, o: np.where(o == 2, np.nan, 1.0))
    with pytest.raises(ValueError, match="conv: latency_us of 0 -> 2 channels is nan"):
        solve(Problem(ladders=(ladder(1, 2),), charges=(holes,), limits={"latency_us": 1.0}))
    flat = layer(total(0), name="conv", latency_us=lambda i, o: np.ones(1))
    with pytest.raises(ValueError, match=r"conv: costs of latency_us have shape \(1,\)"):
        solve(Problem(ladders=(ladder(1, 2),), charges=(flat,), limits={"latency_us": 1.0}))


def test_widths_that_are_not_allowed_are_not_counted() -> None:
    problem = Problem(ladders=(ladder(4, 8),), charges=(layer(total(0), macs=nothing),))
    with pytest.raises(ValueError, match=r"family 0 is 5 wide; allowed are \(4, 8\)"):
        usage(problem, (5,))
    with pytest.raises(ValueError, match="2 widths for 1 families"):
        usage(problem, (4, 8))


def test_counting_by_hand() -> None:
    """A layer from 3 + 2 * 4 + 8 to 4 channels, another of 8 alone, a constant, and a peak of two moments."""
    problem = Problem(
        ladders=(ladder(4), ladder(8)),
        charges=(
            layer(total(0), total(0, 0, 1, constant=3), macs=lambda i, o: i * o, latency_us=lambda i, o: 0.5 * i),
            layer(total(1), macs=lambda i, o: 100 * i + o),
        ),
        constants={"macs": 1000.0},
        moments={"peak_bytes": (Moment(constant=1.0, per_channel={0: 2.0}), Moment(per_channel={0: 1.0, 1: 1.0}))},
    )
    assert usage(problem, (4, 8)) == {"latency_us": 9.5, "macs": 1000 + 19 * 4 + 8, "peak_bytes": 12.0}
    assert value(problem, (4, 8)) == 12.0


@settings(max_examples=30)
@given(problems())
def test_the_order_of_layers_changes_no_count(problem: Problem) -> None:
    turned = Problem(
        ladders=problem.ladders,
        charges=problem.charges[::-1],
        constants=problem.constants,
        moments={name: moments[::-1] for name, moments in problem.moments.items()},
    )
    widest = [own.widths[-1] for own in problem.ladders]
    assert usage(turned, widest) == usage(problem, widest)


def test_a_limit_is_exceeded_by_more_than_rounding() -> None:
    assert not exceeds(0.1 + 0.2, 0.3)
    assert not exceeds(1e9, 1e9)
    assert exceeds(1e9 + 2.0, 1e9)
    assert exceeds(1e-12, 0.0)


def test_stray_lines_of_the_solver_do_not_reach_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    """What others say in the meantime arrives, and in order."""
    print("before")
    with stray_lines_dropped():
        print("during")
        sys.stdout.flush()
        os.write(1, b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n")
        os.system("echo from a child")
    print("after")
    assert capfd.readouterr().out.splitlines() == ["before", "during", "from a child", "after"]


def test_stdout_comes_back_when_something_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), stray_lines_dropped():
        print("during")
        _ = 1 // 0
    print("after")
    assert capfd.readouterr().out.splitlines() == ["during", "after"]


def test_a_process_without_stdout_can_solve() -> None:
    sys.stdout.flush()
    stdout = os.dup(1)
    os.close(1)
    try:
        found = solve(Problem(ladders=(ladder(1, 2),)))
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
    assert found.widths == (2,)
