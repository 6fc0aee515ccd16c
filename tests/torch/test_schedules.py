"""In which steps a budget is reached: what the laws promise, and that all of them end where the budget says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.trainer.budget import Ratio, WidthLimits
from edgeslim.trainer.criteria import criterion
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe import IterativeSchedule, LayerwiseSchedule, OneShotSchedule
from edgeslim.trainer.schedules import Iterative, Layerwise, Schedule, Scoring, build_schedule

from . import nets

L1_ALONE = Scoring(criterion=criterion("l1"), images=np.empty(0, np.float32))
HALF = Ratio(ratio=0.5, limits=WidthLimits(multiple=1, minimum=1))


def net() -> PrunedModel:
    return PrunedModel.from_module(nets.randomized(nets.Dense()), torch.randn(1, 3, 16, 16))


def widths(schedule: Schedule) -> tuple[list[list[int]], PrunedModel]:
    """How many units of every family are left after each cut, between recoveries and at the end."""
    pruned, seen = net(), []

    def look(now: PrunedModel, number: int) -> None:
        assert number == len(seen) + 1
        seen.append([f.width - sum(u in now.cut for u in f.labels.tolist()) for f in now.channels.families])

    schedule.prune(pruned, L1_ALONE, HALF, look)
    look(pruned, len(seen) + 1)
    return seen, pruned


@given(st.integers(1, 20), st.sampled_from(["geometric", "polynomial"]), st.floats(1.0, 5.0))
def test_every_law_rises_to_one(rounds: int, law: str, power: float) -> None:
    schedule = Iterative(rounds=rounds, law=law, power=power)  # type: ignore[arg-type]
    shares = [schedule.share(k) for k in range(1, rounds + 1)]
    assert shares[-1] == pytest.approx(1.0) and all(0 < s <= 1 for s in shares)
    assert all(a < b or b == pytest.approx(1.0) for a, b in itertools.pairwise(shares))


def test_the_polynomial_law_cuts_early() -> None:
    early = Iterative(rounds=4, law="polynomial")
    assert [early.share(k) for k in (1, 2, 3, 4)] == pytest.approx([37 / 64, 56 / 64, 63 / 64, 1.0])
    assert Iterative(rounds=4, law="polynomial", power=1.0).share(2) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        (Iterative(), [[3, 2, 2]]),
        (Iterative(rounds=2), [[5, 3, 3], [3, 2, 2]]),
        (Layerwise(share=1.0), [[3, 4, 4], [3, 2, 4], [3, 2, 2]]),
        (Layerwise(share=0.25), [[4, 4, 4], [3, 4, 4], [3, 3, 4], [3, 2, 4], [3, 2, 3], [3, 2, 2]]),
    ],
)
def test_families_narrow_step_by_step(schedule: Schedule, wanted: list[list[int]]) -> None:
    assert widths(schedule)[0] == wanted


def test_without_recovery_all_schedules_cut_the_same_weights() -> None:
    """l1 of a kernel does not look at its neighbours' masks here: only the first family's inputs are fixed."""
    plans = [widths(s)[1].cut for s in (Iterative(), Layerwise(share=1.0))]
    assert len(plans[0]) == len(plans[1])


def test_scores_are_taken_anew_after_each_cut() -> None:
    """A layer that recovery makes strong is spared by the next step."""
    pruned = net()

    def strengthen(now: PrunedModel, number: int) -> None:
        if number == 1:
            state = {n: t.clone() for n, t in now.module.state_dict().items()}
            alive = state["c.0.weight"][:1].abs().sum() > 0
            assert alive
            state["c.0.weight"][0] *= 1000
            now.load_dense_state(state)

    Layerwise(share=1.0).prune(pruned, L1_ALONE, HALF, strengthen)
    assert pruned.plan.initializers["c.0.weight"][0].axis in (0, 1)
    kept = next(a.keep for a in pruned.plan.initializers["c.0.weight"] if a.axis == 0)
    assert 0 in kept


def test_sections_become_schedules() -> None:
    assert build_schedule(OneShotSchedule(name="one_shot")) == Iterative(rounds=1)
    assert build_schedule(IterativeSchedule(rounds=5, law="polynomial")) == Iterative(rounds=5, law="polynomial")
    assert build_schedule(LayerwiseSchedule(name="layerwise", share=0.5)) == Layerwise(share=0.5)
