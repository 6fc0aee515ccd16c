"""What was not measured, not compared or cannot be drawn is said, and never a zero."""

from __future__ import annotations

import dataclasses
import re

from edgeslim.bench import (
    latency_from_samples,
)
from edgeslim.bench.report.html import ReportData, render
from edgeslim.runtime import Sizes

from .planted import Page, bench, example, headline, side


def test_unmeasured_says_so_and_is_never_zero(data: ReportData) -> None:
    subject = side("compact", 8.0, measured=False)
    sizes = Sizes(parameters=1, weight_bytes=None, macs=None)
    poor = dataclasses.replace(
        data,
        bench=dataclasses.replace(data.bench, subject=subject),
        compact=dataclasses.replace(data.compact, sizes=sizes),
    )
    text = Page(render(poor)).text
    for label in ("Peak memory (growth of a fresh process)", "Arena, most in use", "Activations"):
        assert re.search(re.escape(label) + r" [\d.]+ MB not measured ", text)
    assert re.search(r"Multiply-accumulates \S+ G at 1×192×256×3 not measured ", text)
    assert "Weights not measured not measured" in text
    assert not re.search(r"\b0 (B|KB|MB|ms)\b", text)


def test_a_bundle_measured_alone_is_not_compared(data: ReportData) -> None:
    alone = dataclasses.replace(data, bench=bench(against=False), examples=(), stages={})
    page = Page(render(alone))
    assert headline(alone).startswith("8.23 ms a frame (not compared with the dense net), Dice")
    assert "p50 (median) not measured 8.23 ms" in page.text
    assert "Model file not measured 1.26 MB" in page.text
    assert page.count("section", id="pictures") == page.count("a", href="#pictures") == page.count("img") == 0
    assert page.count("svg") == 3


def test_a_report_without_layers_still_stands(data: ReportData) -> None:
    page = Page(render(dataclasses.replace(data, compact=dataclasses.replace(data.compact, coverage=()))))
    assert "The bundle lists no layers." in page.text


def test_a_far_outlier_is_named_beside_the_plot(data: ReportData) -> None:
    samples = [8_000_000] * 700 + [900_000_000]
    subject = dataclasses.replace(data.bench.subject, latency=latency_from_samples(samples))
    text = Page(render(dataclasses.replace(data, bench=dataclasses.replace(data.bench, subject=subject)))).text
    assert "Beyond the axis: 1 of 701 compact samples, the slowest 900 ms." in text
    assert "Of 2 samples one is drawn." in text


def test_a_stage_without_a_finite_score_is_left_out_of_the_plot(data: ReportData) -> None:
    text = render(dataclasses.replace(data, stages={"dense": {"dice": float("nan"), "auc": 0.5}, "final": {"dice": 1}}))
    assert "dense not finite 0.5000" in Page(text).text
    assert "by training stage: final 1.0000." in text


def test_at_most_four_examples_are_shown(data: ReportData) -> None:
    page = Page(render(dataclasses.replace(data, examples=[example(f"e{i}") for i in range(6)])))
    assert page.count("img") == 4 * 5


def test_weights_that_are_not_zero_are_counted_where_some_are(data: ReportData) -> None:
    def text(nonzero: int | None) -> str:
        sizes = [
            dataclasses.replace(manifest.sizes, weights=weights, nonzero_weights=living)
            for manifest, weights, living in ((data.dense, 300_000, 300_000), (data.compact, 40_000, nonzero))
        ]
        dense, compact = (dataclasses.replace(m, sizes=s) for m, s in zip((data.dense, data.compact), sizes))
        return Page(render(dataclasses.replace(data, dense=dense, compact=compact))).text

    assert "Weights that are not zero 300,000 10,000 30.0× fewer" in text(10_000)
    for whole in (40_000, None):
        assert "not zero" not in text(whole)
