"""Figures of a row share unit and decimals; what is not measured is said."""

from __future__ import annotations

import pytest

from edgeslim.bench.report import comparison, numbers


@pytest.mark.parametrize(
    ("values", "units", "texts"),
    [
        ((28.13, 8.214), numbers.MILLISECONDS, ["28.13 ms", "8.21 ms"]),
        ((7_461_234, 312_000), numbers.BYTES, ["7.461 MB", "0.312 MB"]),
        ((812_000, 99_500), numbers.BYTES, ["812.0 KB", "99.5 KB"]),
        ((512, 64), numbers.BYTES, ["512 B", "64 B"]),
        ((1_234_567.0, None), numbers.COUNTS, ["1.23 M", "not measured"]),
        ((None, None), numbers.BYTES, ["not measured", "not measured"]),
        ((0, 0), numbers.BYTES, ["0 B", "0 B"]),
        ((float("nan"), 5.0), numbers.MILLISECONDS, ["not finite", "5 ms"]),
        ((0.0412, 0.0038), numbers.MILLISECONDS, ["0.0412 ms", "0.0038 ms"]),
    ],
)
def test_values_of_a_row_share_unit_and_decimals(
    values: tuple[float | None, ...], units: numbers.Units, texts: list[str]
) -> None:
    assert [text.replace(numbers.SPACE, " ") for text in numbers.alike(values, units)] == texts


def test_ratios_and_differences_in_words() -> None:
    assert numbers.times(10, 4, "smaller", "larger") == "2.50× smaller"
    assert numbers.times(4, 10, "smaller", "larger") == "2.50× larger"
    assert numbers.times(1000, 1001, "smaller", "larger") == "same"
    assert (
        numbers.times(None, 10, "a", "b") == numbers.times(10, None, "a", "b") == numbers.times(10, 0, "a", "b") == ""
    )
    assert numbers.difference(0.5, 0.49999) == "0.0000"
    assert numbers.difference(0.5, 0.4) == "−0.1000"
    assert numbers.error(0.0) == "0" and numbers.error(None) == "not finite" and numbers.error(1.23e-12) == "1.2e-12"
    assert comparison.metric_name("iou_car") == "IoU of car"
