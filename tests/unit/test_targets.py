"""What may be written as a target, and how it is said again."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.errors import ConfigError
from edgeslim.trainer.budget import parse_wish
from edgeslim.trainer.budget.targets import RESOURCES, Limit, amount_in_words, parse_target
from edgeslim.trainer.recipe import MacsBudget
from edgeslim.trainer.recipe_target import TargetBudget

AMOUNTS = st.floats(1e-9, 1e15)
LIMITS = st.one_of(
    st.builds(Limit, resource=st.sampled_from(RESOURCES), amount=AMOUNTS, relative=st.just(True)),
    st.builds(Limit, resource=st.sampled_from(RESOURCES), amount=st.floats(1.0, 1e15), relative=st.just(False)),
    st.builds(Limit, resource=st.sampled_from(["latency", "memory", "file"]), amount=AMOUNTS, relative=st.just(False)),
)


@given(LIMITS)
def test_limits_survive_their_own_words(limit: Limit) -> None:
    assert parse_target(str(limit)) == (limit,)


@given(st.lists(LIMITS, min_size=1, unique_by=lambda limit: limit.resource))
def test_targets_survive_their_own_words(limits: list[Limit]) -> None:
    assert parse_target(", ".join(map(str, limits))) == tuple(limits)


@given(LIMITS, st.floats(1e-3, 1e12), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_part_of_the_way(limit: Limit, dense: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert limit.at(dense, low) >= limit.at(dense, high) * (1 - 1e-12)
    assert limit.at(dense, 0.0) == max(dense, limit.at(dense))
    assert limit.at(dense) == pytest.approx(limit.amount * dense if limit.relative else limit.amount)
    assert limit.at(dense, low) >= min(dense, limit.at(dense)) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("text", "resource", "amount", "relative"),
    [
        ("latency=8ms", "latency", 8000.0, False),
        ("latency <= 8.5 ms", "latency", 8500.0, False),
        ("latency<0.008s", "latency", 8000.0, False),
        ("latency=.5x", "latency", 0.5, True),
        ("latency=2x", "latency", 2.0, True),
        ("macs=300M", "macs", 3e8, False),
        ("macs=0.5", "macs", 0.5, True),
        ("parameters<1.5M", "parameters", 1.5e6, False),
        ("memory<64MiB", "memory", 64 * 2.0**20, False),
        ("file=250kB", "file", 250e3, False),
    ],
)
def test_what_may_be_written(text: str, resource: str, amount: float, relative: bool) -> None:
    (limit,) = parse_target(text)
    assert (limit.resource, limit.amount, limit.relative) == (resource, pytest.approx(amount), relative)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "target is ''"),
        ("  ", "target is"),
        (None, "target is None"),
        (0.5, "target is 0.5"),
        ("latency=", "'latency=' is not understood"),
        ("latency", "'latency' is not understood"),
        ("=8ms", "is not understood"),
        ("latency=-3ms", "'latency=-3ms' is not understood"),
        ("latency=0ms", "leaves nothing"),
        ("latency=0x", "leaves nothing"),
        ("latency=8", "the unit of latency is 'missing'"),
        ("latency=0.5", "the unit of latency is 'missing'"),
        ("latency=8MB", "the unit of latency is 'MB'"),
        ("memory=8ms", "the unit of memory is 'ms'"),
        ("speed=2x", "there is no resource 'speed'"),
        ("latency=8ms,latency=9ms", "limits latency twice"),
        ("latency=8ms,", "'' is not understood"),
        (",", "'' is not understood"),
        ("latency=8ms;macs=1M", "is not understood"),
        ("latency>8ms", "is not understood"),
        ("latency=nan", "is not understood"),
        ("latency=nanx", "is not understood"),
        ("latency=infx", "is not understood"),
        ("latency=1e3ms", "is not understood"),
        ("latency=8,5ms", "unit of latency"),
        ("latency=٨ms", "is not understood"),
        ("latency=8µs", "is not understood"),
        ("ｌatency=8ms", "is not understood"),
        ("LATENCY=8ms", "is not understood"),
        ("latency=" + "9" * 400 + "ms", "too large a number"),
        ("macs=" + "9" * 308 + "G", "too large a number"),
        ("latency=8ms\0", "is not understood"),
    ],
)
def test_what_may_not_be_written(text: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target(text)
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["latency=", "latency=-3ms", "latency=8", "speed=2x", "latency=8ms,latency=9ms"])
def test_recipes_say_what_is_wrong_with_a_target(text: str) -> None:
    with pytest.raises(ValueError, match=r"target .*write for example|choose from|say it once"):
        TargetBudget(name="target", target=text)


def test_a_wish_is_a_ratio_or_a_target() -> None:
    wish = parse_wish(None, "latency=8ms,memory<64MB", device="cpu:2", profile="here", allow_foreign_profile=True)
    assert isinstance(wish, TargetBudget)
    assert (wish.device, wish.profile, wish.allow_foreign_profile, wish.min_share) == (
        "cpu:2",
        Path("here"),
        True,
        0.25,
    )
    assert isinstance(parse_wish(None, "macs=0.5x"), MacsBudget)
    assert isinstance(parse_wish(None, "macs=1M"), TargetBudget)
    assert isinstance(parse_wish(None, "macs=1.5x"), TargetBudget)  # which the net meets as it is, and that is said
    neither, both = (None, None, None), (0.5, "macs=0.5x", None)
    shares = [(None, "latency=8ms", 1.0), (None, "latency=8ms", math.nan), (0.5, None, 0.5)]
    for ratio, target, share in (neither, both, *shares):
        with pytest.raises(ConfigError):
            parse_wish(ratio, target, share)


@pytest.mark.parametrize(
    ("resource", "amount", "words"),
    [
        ("latency", 8250.0, "8.25 ms"),
        ("memory", 1.5e6, "1.5 MB"),
        ("macs", 2581000.0, "2.581 M"),
        ("file", 12.0, "12 B"),
        ("parameters", 999.0, "999"),
        ("macs", 3.2e9, "3.2 G"),
    ],
)
def test_amounts_in_words(resource: str, amount: float, words: str) -> None:
    assert amount_in_words(resource, amount) == words
