"""The pattern matrix: every row equal where equality is possible, else declined with the reason."""

from __future__ import annotations

import pytest
import torch

from edgeslim.exporter.channels import analyze
from edgeslim.exporter.channels.coverage import coverage
from edgeslim.exporter.trace import trace

from .check import alive, check
from .patterns import DECLINED, EQUAL

EVERY = 1000
"""More than any of these nets has families: each is cut alone once."""

TOLERANCE = 1e-5


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.xfail(strict=True, reason=f"no rule yet: {p.missing}") if p.missing else ()
        )
        for name, p in EQUAL.items()
    ],
)
def test_equal(name: str) -> None:
    pattern = EQUAL[name]
    seen = check(name, pattern.build, pattern.shape, singles=EVERY)
    assert seen.verdict == "equal", seen
    assert max(seen.error_half or 0.0, seen.error_single or 0.0) < TOLERANCE
    assert seen.prunable_layers >= pattern.layers, seen.reasons


@pytest.mark.parametrize("name", DECLINED)
def test_declined_with_the_reason(name: str) -> None:
    pattern = DECLINED[name]
    torch.manual_seed(0)
    net = alive(pattern.build(), example := torch.randn(pattern.shape))
    report = coverage(analyze(trace(net, example), set(net.state_dict())))
    entry = next(e for e in report if e.layer == pattern.layer)
    assert entry.family is None and entry.reason is not None and pattern.reason in entry.reason
    seen = check(name, pattern.build, pattern.shape, singles=EVERY)  # what may be cut elsewhere is still exact
    assert seen.verdict == "equal", seen
