"""The checker must be able to fail."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from torch import Tensor, nn

from edgeslim.exporter.passes.remove_channels import remove_channels
from tests.torch import nets

from . import check as checker


@pytest.mark.parametrize(("noise", "precision"), [(checker.NOISE, "float32"), (-1.0, "float64")])
def test_a_planted_fault_is_wrong(monkeypatch: pytest.MonkeyPatch, noise: float, precision: str) -> None:
    monkeypatch.setattr(checker, "NOISE", noise)
    right = checker.check("right", nets.Residual, (1, 3, 16, 16))
    assert (right.verdict, right.precision) == ("equal", precision)
    assert precision == "float32" or (right.error_half is not None and right.error_half < 1e-9)

    def off_by_a_thousandth(*given: object) -> ir.Model:
        compact = remove_channels(*given)  # type: ignore[arg-type]
        (last,) = (v for v in compact.graph.initializers.values() if v.name == "head.weight")
        assert last.const_value is not None
        last.const_value = ir.tensor(1.001 * last.const_value.numpy())
        return compact

    monkeypatch.setattr(checker, "remove_channels", off_by_a_thousandth)
    assert checker.check("planted", nets.Residual, (1, 3, 16, 16)).verdict == "wrong"


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
