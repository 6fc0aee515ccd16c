"""The checker must be able to fail."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor, nn

from tests.torch import nets

from . import check as checker


def test_a_planted_fault_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    right = checker.runner_from_graph
    monkeypatch.setattr(checker, "runner_from_graph", lambda g: lambda x: [1.001 * a for a in right(g)(x)])
    seen = checker.check("planted", nets.Residual, (1, 3, 16, 16))
    assert seen.verdict == "wrong" and seen.error_half == pytest.approx(1e-3, rel=0.1)


def test_an_exception_is_an_outcome() -> None:
    class Refuses(nn.Module):
        def forward(self, x: object) -> object:
            raise ValueError("not today")

    seen = checker.check("planted", Refuses, (1, 3, 16, 16))
    assert seen.verdict == "exception" and seen.exception == "ValueError: not today"


def test_a_nan_and_another_shape_are_wrong() -> None:
    nan = np.full((1, 2), np.nan, np.float32)
    assert checker.largest_error(nan[:, :1], nan) == float("inf")
    assert checker.Outcome(name="nan", error_half=checker.largest_error(nan, np.ones_like(nan))).verdict == "wrong"


def test_half_of_every_family_is_cut() -> None:
    seen = checker.check("plain", nets.Plain, (1, 3, 16, 16))
    assert (seen.families, seen.pruned_layers, seen.channels, seen.prunable_channels) == (2, 2, 18, 16)


def test_a_net_that_does_not_look_at_its_input_is_blind() -> None:
    class Blind(nets.Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(0 * x)

    assert checker.check("blind", Blind, (1, 3, 16, 16)).verdict == "blind"
