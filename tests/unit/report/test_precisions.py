"""Precisions in the report: what each weighs, loses and runs on, and what a search found."""

from __future__ import annotations

import dataclasses

from edgeslim.bench.report.html import ReportData, render
from edgeslim.bench.report.precisions import precisions
from edgeslim.runtime import Deviation, GroupChoice, Variant

from .planted import Page

HASH = "0" * 64
INT8 = Variant(
    name="int8",
    precision="int8",
    file="model.int8.onnx",
    placement="tensorrt",
    weight_bytes=311_842,
    atol=0.1,
    rtol=0.1,
    relative_rms=0.1,
    deviation=Deviation(frames=16, max_abs=0.4, relative_rms=0.0173),
    metrics={"dice": 0.8051},
    model_metrics={"dice": 0.8092},
    validation_images=48,
    settings={"calibrator": "mse", "calibration": HASH, "validation": HASH},
    search=(
        GroupChoice(
            group="layers 1-3",
            layers=("a", "b", "c"),
            precision="fp32",
            gain_ms=-0.25,
            gain_low_ms=-0.5,
            gain_high_ms=None,
            loss=None,
            reason="<planted> & slow",
        ),
    ),
)


def test_a_row_for_every_precision_and_the_model_first(data: ReportData) -> None:
    half = dataclasses.replace(
        INT8, name="half", file="model.half.onnx", onnxruntime=False, metrics={}, model_metrics={}, search=()
    )
    section = precisions(dataclasses.replace(data.compact, variants=(INT8, half)))
    assert section is not None and (section.metric, section.images) == ("Dice", "48 images")
    model, int8, unscored = section.rows
    assert (model.name, model.score, model.change) == ("fp32", "0.8092", "")
    assert (model.weights.split(), int8.weights.split()) == (["1.247", "MB"], ["0.312", "MB"])
    assert (int8.distance.split()[0], int8.score, int8.change) == ("1.73", "0.8051", "−0.0041")
    assert int8.runs_on == "TensorRT, ONNX Runtime" and int8.made_with == "calibrator mse"
    assert (unscored.score, unscored.change, unscored.runs_on) == ("not measured", "", "TensorRT")
    ((name, (row,)),) = section.searches
    assert name == "int8" and (row.gain, row.interval, row.loss) == ("−0.250", "not measured", "not measured")


def test_the_page_has_them_and_escapes_them(data: ReportData) -> None:
    text = render(dataclasses.replace(data, compact=dataclasses.replace(data.compact, variants=(INT8,))))
    assert "Precisions of the compact net" in text and "int8, measured group by group" in text
    assert (
        "&lt;planted&gt; &amp; slow" in text and "<planted>" not in text and HASH not in text.partition("Made with")[0]
    )
    assert 'href="#precisions"' in text
    Page(text)


def test_without_any_there_is_no_section(data: ReportData, report: str) -> None:
    assert precisions(data.compact) is None and "Precisions of" not in report and "#precisions" not in report
