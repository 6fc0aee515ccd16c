"""Plans whose own graphs are within the limits: what is told to the programme is moved until what is counted fits.

A count on paper, of which the programme knows nothing but a guess, against the best of all plans.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.bench.profile import Widths
from edgeslim.trainer.budget import counted
from edgeslim.trainer.budget.counted import ATTEMPTS, CountedPlans
from edgeslim.trainer.budget.programme import Charge, Ladder, Moment, OutOfReach, Problem, Total, value

WIDTHS = (8, 16, 24, 32)


def problem(limits: dict[str, float], families: int = 3) -> Problem:
    """Every channel is worth 1 and costs 1 of macs; memory is guessed to be the sum of two neighbours."""
    ladder = Ladder(widths=WIDTHS, values=tuple(float(width) for width in WIDTHS))
    return Problem(
        ladders=(ladder,) * families,
        charges=tuple(
            Charge(name=str(f), outputs=Total(coefficients={f: 1}), costs={"macs": lambda _, o: o * 1.0})
            for f in range(families)
        ),
        moments={"memory": tuple(Moment(constant=0.0, per_channel={f: 1.0, f + 1: 1.0}) for f in range(families - 1))},
        limits=limits,
    )


def guess(widths: Widths) -> float:
    return float(max(a + b for a, b in itertools.pairwise(widths)))


def fitting(limit: float, memory: Callable[[Widths], float]) -> list[Widths]:
    return [widths for widths in itertools.product(WIDTHS, repeat=3) if memory(widths) <= limit]


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.floats(0.4, 2.0), st.floats(0.0, 0.4), st.floats(0.2, 1.2))
def test_memory_is_what_is_counted_however_wrong_the_guess_is(
    seed: int, factor: float, gaps: float, share: float
) -> None:
    """gaps: what a plan takes beside the guess, other for every plan."""

    def memory(widths: Widths) -> float:
        return factor * guess(widths) * (1.0 + gaps * (hash((seed, widths)) % 1000) / 1000)

    limit = share * memory((32, 32, 32))
    plans = CountedPlans(limits={"memory": limit}, count=lambda w: {"memory": memory(w)})
    asked = problem({"memory": limit})
    able = fitting(limit, memory)
    try:
        found = plans.best(asked).widths
    except OutOfReach:
        assert (8, 8, 8) not in able
        return
    assert memory(found) <= limit * (1 + 1e-9)
    for family, own in enumerate(found):  # no wider plan is within the limit, however gaps lie
        for wider in (width for width in WIDTHS if width > own):
            assert not plans.fits((*found[:family], wider, *found[family + 1 :]))
    if gaps == 0.0:  # then a plan within the guess is one within the count
        assert value(asked, found) >= 0.85 * max(value(asked, widths) for widths in able)


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_a_guess_that_is_too_high_or_too_low_costs_no_importance(factor: float) -> None:
    limit = factor * 48.0
    plans = CountedPlans(limits={"memory": limit}, count=lambda w: {"memory": factor * guess(w)})
    found = plans.best(problem({"memory": limit})).widths
    assert value(problem({}), found) == max(value(problem({}), w) for w in fitting(48.0, guess)) == 80.0


def test_units_of_unequal_size_are_counted_as_they_are() -> None:
    """Each plan takes a twentieth more than the programme thinks."""
    limits = {"macs": 60.0}
    plans = CountedPlans(limits=limits, count=lambda w: {"macs": 1.05 * sum(w)})
    found = plans.best(problem(limits)).widths
    assert sum(found) == 56 and plans.fits(found) and not plans.fits((16, 16, 32))


def test_room_that_a_guess_left_is_not_given_away_where_another_limit_has_none() -> None:
    """By its macs one channel block more would be too much, so no plan is counted for it."""
    limits = {"memory": 60.0, "macs": 80.0}
    asked = list[Widths]()

    def count(widths: Widths) -> dict[str, float]:
        asked.append(widths)
        return {"memory": guess(widths), "macs": float(sum(widths))}

    found = CountedPlans(limits=limits, count=count).best(problem(limits)).widths
    assert sum(found) == 80 and guess(found) <= 60
    assert all(sum(widths) <= 80 for widths in asked)


def test_what_is_left_untried_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a block that no single wider family fits, and none may be counted."""
    for most, untried in ((0, True), (100, False)):
        monkeypatch.setattr(counted, "MOST_TRIED", most)
        plans = CountedPlans(limits={"memory": 50.0}, count=lambda w: {"memory": guess(w)})
        assert guess(plans.best(problem({"memory": 50.0})).widths) == 48
        assert plans.untried is untried


def test_the_least_memory_may_be_at_wider_widths() -> None:
    """Whole blocks need no copies in another layout; what is least of all is found, and said."""

    def memory(widths: Widths) -> float:
        return guess(widths) * (2.0 if any(width % 16 for width in widths) else 0.9)

    within = CountedPlans(limits={"memory": 29.0}, count=lambda w: {"memory": memory(w)})
    assert within.best(problem({"memory": 29.0})).widths == (16, 16, 16)
    beyond = CountedPlans(limits={"memory": 28.0}, count=lambda w: {"memory": memory(w)})
    with pytest.raises(OutOfReach):
        beyond.best(problem({"memory": 28.0}))
    assert beyond.least_seen("memory") == pytest.approx(28.8)


def test_what_cannot_be_met_is_out_of_reach_by_what_is_counted() -> None:
    limits = {"memory": 20.0, "macs": 90.0}
    asked = list[Widths]()

    def count(widths: Widths) -> dict[str, float]:
        asked.append(widths)
        return {"memory": guess(widths) + 10.0, "macs": float(sum(widths))}

    with pytest.raises(OutOfReach) as caught:
        CountedPlans(limits=limits, count=count).best(problem(limits))
    assert set(caught.value.least) == {"memory", "macs"}
    assert len(asked) == len(set(asked)) <= ATTEMPTS + len(WIDTHS) + 1


def test_the_narrowest_plan_is_tried_where_the_guess_allows_none() -> None:
    limits = {"memory": 10.0}
    plans = CountedPlans(limits=limits, count=lambda w: {"memory": guess(w) / 2})
    assert plans.fits(plans.best(problem(limits)).widths)
