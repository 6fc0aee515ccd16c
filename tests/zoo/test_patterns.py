"""The pattern matrix: every row equal where equality is possible, else declined with the reason."""

from __future__ import annotations

import pytest

from . import blocks, patterns
from .check import check

EQUAL, DECLINED = patterns.EQUAL | blocks.EQUAL, patterns.DECLINED | blocks.DECLINED

EVERY = 1000
"""More than any of these nets has families: each is cut alone once."""

TOLERANCE = 1e-5


@pytest.mark.parametrize("name", EQUAL)
def test_equal(name: str) -> None:
    pattern = EQUAL[name]
    seen = check(name, pattern.build, pattern.shape, singles=EVERY)
    assert seen.verdict == "equal", seen
    assert max(seen.error_half or 0.0, seen.error_single or 0.0) < TOLERANCE
    assert seen.prunable_layers >= pattern.layers, seen.stayed


@pytest.mark.parametrize("name", DECLINED)
def test_declined_with_the_reason(name: str) -> None:
    pattern = DECLINED[name]
    seen = check(name, pattern.build, pattern.shape, singles=EVERY)
    assert pattern.reason in seen.stayed[pattern.layer]
    assert seen.verdict == "equal", seen  # what may be cut elsewhere is still exact
