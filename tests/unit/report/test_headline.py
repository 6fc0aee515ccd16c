"""The headline and the warnings say plainly how the compact net compares: speed, accuracy, proof."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from edgeslim.bench.report import comparison
from edgeslim.bench.report.html import ReportData, render
from edgeslim.runtime import Certificate

from .planted import Page, bench, headline, stage


def with_metrics(data: ReportData, dense: Mapping[str, float], compact: Mapping[str, float]) -> ReportData:
    return dataclasses.replace(
        data,
        dense=dataclasses.replace(data.dense, metrics=dense),
        compact=dataclasses.replace(data.compact, metrics=compact),
    )


def test_the_headline_names_speed_interval_accuracy_and_proof(data: ReportData, page: Page) -> None:
    assert headline(data) == "3.42× faster (95 % interval 3.31–3.55), Dice 0.8123 → 0.8092, proof passed"
    assert page.text.count(headline(data)) == 2, "as title and as heading"


@pytest.mark.parametrize(
    ("ratio", "low", "high", "words"),
    [
        (1.02, 0.97, 1.08, "Not measurably faster (1.020×, 95 % interval 0.970–1.080)"),
        (1.0, 1.0, 1.0, "Not measurably faster (1.000×, 95 % interval 1.000–1.000)"),
        (0.5, 0.4, 0.8, "2.00× slower (95 % interval 1.25–2.50)"),
        (1.03, 1.01, 1.06, "Only 1.030× faster (95 % interval 1.010–1.060)"),
        (12.345, 11.0, 13.0, "12.3× faster (95 % interval 11.0–13.0)"),
    ],
)
def test_a_net_that_is_not_faster_is_not_called_faster(
    data: ReportData, ratio: float, low: float, high: float, words: str
) -> None:
    text = headline(dataclasses.replace(data, bench=bench(ratio, low, high)))
    assert text.startswith(words + ", Dice")


@pytest.mark.parametrize(
    ("dense", "compact", "words"),
    [
        ({"dice": 0.81}, {"dice": 0.7712}, "Dice fell 0.8100 → 0.7712"),
        ({"dice": 0.56}, {"dice": 0.55}, "Dice 0.5600 → 0.5500"),
        ({"dice": 0.7}, {"dice": 0.75}, "Dice 0.7000 → 0.7500"),
        ({"accuracy": 0.5, "miou": 0.6}, {"miou": 0.6, "dice": 1.0, "accuracy": 0.5}, "mean IoU 0.6000 → 0.6000"),
        ({"mine": 0.5}, {"mine": 0.5}, "mine 0.5000 → 0.5000"),
        ({"dice": 0.5}, {}, "accuracy not measured"),
    ],
)
def test_accuracy_is_said_plainly(
    data: ReportData, dense: Mapping[str, float], compact: Mapping[str, float], words: str
) -> None:
    assert f"), {words}, proof" in headline(with_metrics(data, dense, compact))


def test_another_metric_that_fell_is_a_warning(data: ReportData) -> None:
    poor = with_metrics(data, {"dice": 0.8, "sensitivity": 0.9}, {"dice": 0.8, "sensitivity": 0.85})
    found = comparison.findings(poor.dense, poor.compact, poor.bench)
    assert found == ("sensitivity fell from 0.9000 to 0.8500, by 0.0500",)


def test_a_failed_or_missing_proof_is_in_the_headline(data: ReportData) -> None:
    stages = (stage(), stage(passed=False))
    bad = dataclasses.replace(data, compact=dataclasses.replace(data.compact, certificate=Certificate(stages=stages)))
    assert headline(bad).endswith("PROOF FAILED")
    page = Page(render(bad))
    assert "1 of 2 comparisons with the masked net failed: do not ship this bundle." in page.text
    assert "not finite not finite 2.5e-5 + 1.0e-4·|b| ✗ FAILED" in page.text
    bad = dataclasses.replace(data, compact=dataclasses.replace(data.compact, certificate=Certificate(stages=())))
    assert headline(bad).endswith("no proof")
    assert "nothing is proved" in Page(render(bad)).text


def test_nothing_to_warn_of_is_said(data: ReportData) -> None:
    quiet = dataclasses.replace(data, bench=dataclasses.replace(data.bench, warnings=()), notes=())
    words = "Neither the benchmark nor the run had anything to warn of."
    assert words in Page(render(quiet)).text
    slower = dataclasses.replace(quiet, bench=dataclasses.replace(bench(0.5, 0.4, 0.6), warnings=()))
    assert words not in Page(render(slower)).text
