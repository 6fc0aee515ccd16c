"""The pattern matrix: every row equal where equality is possible, else declined with the reason."""

from __future__ import annotations

import pytest

from .check import check
from .patterns import DECLINED, EQUAL

EVERY = 1000
"""More than any of these nets has families: each is cut alone once."""

TOLERANCE = 1e-5


class StillClosed(AssertionError):
    """Fewer layers are open than could be; what is open is exact."""


def _expected(missing: str) -> tuple[pytest.MarkDecorator, ...]:
    """A missing rule excuses closed layers, never a wrong result."""
    reason = f"no rule yet: {missing}"
    return (pytest.mark.xfail(strict=True, raises=StillClosed, reason=reason),) if missing else ()


@pytest.mark.parametrize("name", [pytest.param(name, marks=_expected(p.missing)) for name, p in EQUAL.items()])
def test_equal(name: str) -> None:
    pattern = EQUAL[name]
    seen = check(name, pattern.build, pattern.shape, singles=EVERY)
    assert seen.verdict == "equal", seen
    assert max(seen.error_half or 0.0, seen.error_single or 0.0) < TOLERANCE
    if seen.prunable_layers < pattern.layers:
        raise StillClosed(f"{seen.prunable_layers} of {pattern.layers} layers are open: {seen.stayed}")


@pytest.mark.parametrize("name", DECLINED)
def test_declined_with_the_reason(name: str) -> None:
    pattern = DECLINED[name]
    seen = check(name, pattern.build, pattern.shape, singles=EVERY)
    assert pattern.reason in seen.stayed[pattern.layer]
    assert seen.verdict == "equal", seen  # what may be cut elsewhere is still exact
