"""Cuts that buy nothing are taken back, and only those."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.trainer.budget.programme import Moment, Problem, Undone, exceeds, solve, usage, value, widen

from .programmes import ladder, layer, problems, stairs, total


@settings(max_examples=50)
@given(problems(), st.data())
def test_afterwards_no_family_can_be_widened_for_nothing(problem: Problem, data: st.DataObject) -> None:
    """From any widths, for any resources: none grew, none narrowed, and no single wider rung is free."""
    widths = tuple(data.draw(st.sampled_from(own.widths)) for own in problem.ladders)
    counting = data.draw(st.sets(st.sampled_from(problem.resources)))
    found = widen(problem, widths, resources=counting)
    before, after = usage(problem, widths), usage(problem, found.widths)
    assert all(after[name] <= before[name] for name in counting)
    assert value(problem, found.widths) >= value(problem, widths)
    now = list(widths)
    for step in found.undone:
        assert now[step.family] == step.before < step.after
        now[step.family] = step.after
    assert tuple(now) == found.widths
    for family, own in enumerate(problem.ladders):
        for width in own.widths:
            if width > found.widths[family]:
                wider = usage(problem, [*now[:family], width, *now[family + 1 :]])
                assert any(wider[name] > after[name] for name in counting)
    assert widen(problem, found.widths, resources=counting).undone == ()


@settings(max_examples=20)
@given(problems())
def test_what_was_solved_stays_within_its_limits(problem: Problem) -> None:
    widest = usage(problem, [own.widths[-1] for own in problem.ladders])
    if any(exceeds(used, problem.limits.get(name, np.inf)) for name, used in widest.items()):
        return
    found = widen(problem, solve(problem, gap=0.5).widths)
    assert not any(
        exceeds(used, problem.limits.get(name, np.inf)) for name, used in usage(problem, found.widths).items()
    )


def test_widths_rise_to_the_edge_of_their_block() -> None:
    """Blocks of 8: 17 channels cost as much as 24, and 25 cost more. The limit is on time, so parameters may grow."""
    charge = layer(total(0), total(1), latency_us=stairs(8, 1.0), parameters=lambda i, o: i * o)
    problem = Problem(
        ladders=(ladder(*range(1, 33)), ladder(*range(1, 33))), charges=(charge,), limits={"latency_us": 12.0}
    )
    found = widen(problem, (17, 32))
    assert found.widths == (24, 32)
    assert found.undone == (Undone(family=0, before=17, after=24),)
    assert widen(problem, (17, 32), resources=["latency_us", "parameters"]).undone == ()


def test_a_wider_width_that_is_faster_is_taken() -> None:
    """31 channels are slower than 32; 40 are slower still."""
    times = {30: 10.0, 31: 15.0, 32: 10.0, 40: 16.0}
    charge = layer(total(0), latency_us=lambda i, o: np.vectorize(times.__getitem__)(o).astype(np.float64))
    problem = Problem(ladders=(ladder(*times),), charges=(charge,), limits={"latency_us": 20.0})
    assert widen(problem, (30,)).widths == (32,)
    assert widen(problem, (31,)).widths == (32,)


def test_a_family_is_free_once_another_went_wide() -> None:
    """Family 1 is read beside family 0: from 4 + 3 to 4 + 4 is free, and only then is the next block full."""
    charge = layer(total(2), total(0, 1), latency_us=stairs(8, 1.0))
    problem = Problem(ladders=(ladder(4), ladder(3, 4, 5), ladder(8)), charges=(charge,), limits={"latency_us": 5.0})
    assert widen(problem, (4, 3, 8)).widths == (4, 4, 8)


def test_a_family_below_the_peak_is_widened() -> None:
    moments = (Moment(per_channel={0: 10.0}), Moment(per_channel={1: 10.0}))
    problem = Problem(
        ladders=(ladder(4, 8), ladder(4, 8)), moments={"peak_bytes": moments}, limits={"peak_bytes": 80.0}
    )
    assert widen(problem, (8, 4)).widths == (8, 8)
    assert widen(problem, (4, 4)).undone == ()


def test_the_family_that_keeps_most_comes_first() -> None:
    """One block has room for one of two: the more important one gets it."""
    problem = Problem(
        ladders=(ladder(3, 4, values=(0, 1)), ladder(3, 4, values=(0, 2)), ladder(8)),
        charges=(layer(total(2), total(0, 1, constant=1), latency_us=stairs(8, 1.0)),),
        limits={"latency_us": 1.0},
    )
    assert widen(problem, (3, 3, 8)).widths == (3, 4, 8)


def test_what_does_not_exist_is_refused() -> None:
    problem = Problem(ladders=(ladder(4, 8),), constants={"macs": 1.0})
    with pytest.raises(ValueError, match=r"no \['watts'\]; there are macs"):
        widen(problem, (4,), resources=["watts"])
    with pytest.raises(ValueError, match="family 0 is 5 wide"):
        widen(problem, (5,))
