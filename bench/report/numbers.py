"""Numbers as a person reads them: three digits that matter, one unit a row, and words for what is not there.

Two figures that are to be compared share their unit and their decimals ("28.13 ms", "8.21 ms"), so the eye needs no
conversion. Bytes are decimal: 1 KB is 1,000 and 1 MB is 1,000,000 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

MISSING = "not measured"
SPACE = "\u00a0"
"""Between a number and its unit: no line breaks there."""
_DIGITS = 3

Units = Sequence[tuple[float, str]]
BYTES: Units = ((1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1, "B"))
COUNTS: Units = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
MILLISECONDS: Units = ((1, "ms"),)


def alike(values: Sequence[float | None], units: Units) -> list[str]:
    """Texts in one unit, the largest value's, with decimals for the smallest; None is "not measured"."""
    sizes = [abs(value) for value in values if value is not None and math.isfinite(value) and value]
    scale, unit = next((step for step in units if max(sizes, default=0) >= step[0]), units[-1])
    exact = scale == 1 and all(size == int(size) for size in sizes)
    smallest = min(sizes, default=1) / scale
    decimals = 0 if exact else min(max(_DIGITS - 1 - math.floor(math.log10(smallest)), 0), 4)
    return [words(value, f"{{:,.{decimals}f}}{SPACE}{unit}".rstrip(), scale) for value in values]


def quantity(value: float | None, units: Units) -> str:
    """One value on its own, see `alike`."""
    return alike([value], units)[0]


def words(value: float | None, form: str, scale: float = 1.0) -> str:
    """`value / scale` in `form`, or the words for a value that is missing or no number."""
    if value is None:
        return MISSING
    return form.format(value / scale if scale != 1 else value) if math.isfinite(value) else "not finite"


def count(value: int | None) -> str:
    """A whole number with separators: "466,818"."""
    return words(value, "{:,d}")


def percent(value: float | None, decimals: int = 1) -> str:
    """A share: 0.0123 is "1.2 %"."""
    return words(value, f"{{:.{decimals}f}}{SPACE}%", 0.01)


def score(value: float | None) -> str:
    """A metric of accuracy, four decimals everywhere so that the same figure looks the same everywhere."""
    return words(value, "{:.4f}")


def difference(before: float | None, after: float | None) -> str:
    """after - before with its sign, "" where there is none."""
    if before is None or after is None or not math.isfinite(after - before):
        return ""
    text = f"{after - before:+.4f}"
    return "0.0000" if float(text) == 0.0 else text.replace("-", "−")


def error(value: float | None) -> str:
    """An error of a comparison: "3.1e-6"; None means that an output was not finite."""
    if value is None:
        return "not finite"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"


def times(before: float | None, after: float | None, less: str, more: str) -> str:
    """The ratio in words: "3.42× smaller" where `less` is "smaller"; "" where it is unknown."""
    if not before or not after:
        return ""
    ratio = before / after
    if f"{ratio:.2f}" == "1.00":
        return "same"
    return f"{factor(ratio)}× {less}" if ratio > 1.0 else f"{factor(1.0 / ratio)}× {more}"


def factor(ratio: float, decimals: int = 2) -> str:
    """A ratio without its sign: "3.42", "34.2", "342"."""
    return f"{ratio:,.{max(decimals - (ratio >= 99.95) - (ratio >= 9.995), 0)}f}"
