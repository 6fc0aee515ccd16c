"""The optimiser of a run and the rate it takes."""

from __future__ import annotations

import copy
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.trainer.optimizer import learning_rate
from edgeslim.trainer.recipe import FitSection
from edgeslim.trainer.workspace import Workspace

from .runs import section, train

pytestmark = pytest.mark.usefixtures("one_thread")


@given(st.integers(1, 300), st.integers(0, 40), st.floats(1e-6, 10.0))
def test_the_learning_rate_rises_in_a_line_and_falls_in_a_cosine(steps: int, warmup: int, lr: float) -> None:
    rule = FitSection(steps=steps, warmup_steps=warmup, lr=lr)
    rates = [learning_rate(rule, t) for t in range(steps)]
    assert all(0.0 < rate <= lr * (1 + 1e-12) for rate in rates)
    for t, rate in enumerate(rates):
        if t < warmup:
            assert rate == pytest.approx(lr * (t + 1) / (warmup + 1))
        else:
            assert rate == pytest.approx(lr * (1 + math.cos(math.pi * (t - warmup) / (steps - warmup))) / 2)
    if warmup < steps:
        assert rates[warmup] == lr
        assert learning_rate(rule, steps) == pytest.approx(0.0, abs=1e-12 * lr)


@pytest.mark.parametrize("warmup", [0, 3])
def test_the_optimiser_takes_that_rate(workspace: Workspace, warmup: int) -> None:
    """Adam's first step moves every weight by the rate itself."""
    module = workspace.fresh_module()
    before = copy.deepcopy(module)
    changed = section(steps=1, lr=1e-3, warmup_steps=warmup, optimizer="adam", clip_norm=None)
    train(workspace, changed=changed, module=module)
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(module.parameters(), before.parameters()))
    assert moved == pytest.approx(1e-3 / (warmup + 1), rel=1e-3)
