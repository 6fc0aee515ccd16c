"""What an option of a regularizer or criterion may be, said in one wording.

Recipes check their sections by themselves, with the path in the file; these checks are for objects made in Python.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeslim.errors import ConfigError


def check_number(
    owner: str,
    name: str,
    value: object,
    *,
    low: float = 0.0,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = True,
) -> None:
    """Raise ConfigError unless `value` is a number from `low` to `high`; an open end is not allowed itself."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if fits and isinstance(value, (int, float)):
        fits = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
    if not fits:
        begin, end = ("above" if open_low else "from"), ("below" if open_high else "up to")
        limits = f"{begin} {low:g}, {end} {high:g}" if math.isfinite(high) else f"{begin} {low:g}"
        finite = "finite " if high == math.inf and open_high else ""
        raise ConfigError(
            f"{owner}: {name} is {value!r}; it must be a {finite}number {limits}", "see the defaults, or docs/methods"
        )


def check_count(owner: str, name: str, value: object, *, low: int = 1) -> None:
    """Raise ConfigError unless `value` is a whole number from `low`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ConfigError(
            f"{owner}: {name} is {value!r}; it must be a whole number from {low}", "see the defaults, or docs/methods"
        )


def check_choice(owner: str, name: str, value: object, known: Sequence[str]) -> None:
    """Raise ConfigError unless `value` is one of the words in `known`."""
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{owner}: {name} is {value!r}", f"choose one of {', '.join(known)}")
