"""The HTML report says what was planted, says what is missing, and asks nobody for anything."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from html.parser import HTMLParser

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgeslim.bench import (
    ArenaUse,
    BenchResult,
    Machine,
    MemoryUse,
    Settings,
    Side,
    Speedup,
    WarmUp,
    latency_from_samples,
)
from edgeslim.bench.report import comparison, examples, numbers
from edgeslim.bench.report.html import Example, ReportData, render
from edgeslim.runtime import Certificate, LayerCoverage, Manifest, Sizes, Stage

MakeManifest = Callable[[], Manifest]
VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})
HOSTILE = "</title></style><script>alert('x')</script>\"'&$\\frac{$ 漢字\n"


def stage(name: str = "compact ONNX", passed: bool = True) -> Stage:
    error = 3.14e-6 if passed else None
    return Stage(
        name=name,
        reference="masked torch",
        inputs="real 2x3x64x96",
        max_abs=error,
        max_rel=error,
        atol=2.5e-5,
        rtol=1e-4,
        passed=passed,
    )


def side(name: str, median_ms: float, *, measured: bool = True, n: int = 120) -> Side:
    samples = [round(median_ms * 1e6 * (1 + 0.001 * (i % 5))) for i in range(n)]
    arena = ArenaUse(held_bytes=9_000_000, peak_bytes=8_000_000, activation_bytes=7_000_000, packed_weight_bytes=6)
    return Side(
        name=name,
        manifest_sha256=("ab" if name == "dense" else "cd") * 32,
        parameters=1,
        macs=None,
        warm_up=WarmUp(calls=17, seconds=1.0, settled=True, tolerance=0.03),
        latency=latency_from_samples(samples),
        memory=MemoryUse(
            file_bytes=7_461_234 if name == "dense" else 1_257_312,
            weight_bytes=None,
            arena=arena if measured else None,
            peak_rss_bytes=33_400_000 if measured else None,
        ),
    )


def bench(ratio: float = 3.42, low: float = 3.31, high: float = 3.55, against: bool = True) -> BenchResult:
    speed = Speedup(ratio=ratio, low=low, high=high, confidence=0.95, resamples=2000, seed=0)
    return BenchResult(
        written_by="0.1.0",
        settings=Settings(
            backend="onnxruntime",
            threads=1,
            spin=False,
            samples=120,
            seconds=15.0,
            frame_size=(192, 256),
            seed=0,
            order="ABBA",
        ),
        machine=Machine(
            board=None,
            cpu="Planted CPU",
            architecture="x86_64",
            logical_cores=2,
            usable_cores=2,
            cpu_quota=None,
            frequency_mhz=2596.1,
            governor=None,
            load_1min=0.25,
            memory_bytes=25_300_000_000,
            os="Planted OS",
            python="3.11.7",
            versions={"numpy": "2.4.6"},
        ),
        subject=side("compact", 8.214),
        against=side("dense", 28.13) if against else None,
        speedup=speed if against else None,
        warnings=("the machine was busy: planted",),
    )


def example(name: str = "test-00001", classes: int = 2, shape: tuple[int, int] = (40, 50)) -> Example:
    draw = np.random.default_rng(3)
    mask = draw.integers(0, classes, shape, dtype=np.uint8)
    mask[:4] = 255
    dense, compact = mask.copy(), mask.copy()
    dense[10:12] = 0
    compact[10:14] = 1
    frame = draw.integers(0, 256, (*shape, 3), dtype=np.uint8)
    return Example(name=name, frame=frame, mask=mask, dense=dense, compact=compact, ignore_index=255)


@pytest.fixture(scope="module")
def data(tiny_manifest: MakeManifest) -> ReportData:
    plain = tiny_manifest()
    compact = dataclasses.replace(
        plain,
        name="compact",
        metrics={"dice": 0.8092, "auc": 0.9754},
        sizes=Sizes(parameters=311_842, weight_bytes=1_247_368, macs=601_233_408, macs_shape=(1, 192, 256, 3)),
        certificate=Certificate(stages=(stage("compact torch"), stage())),
        coverage=(
            LayerCoverage(layer="stem.weight", operator="Conv", width_before=32, width_after=16, family="stem.weight"),
            LayerCoverage(layer="late.weight", operator="Conv", width_before=64, width_after=64, family="stem.weight"),
            LayerCoverage(layer="head.weight", operator="Gemm", width_before=2, width_after=2, reason="graph output"),
        ),
    )
    dense = dataclasses.replace(
        plain,
        name="dense",
        metrics={"dice": 0.8123, "auc": 0.9771},
        sizes=Sizes(parameters=1_862_690, weight_bytes=None, macs=3_456_789_012, macs_shape=(1, 192, 256, 3)),
        certificate=Certificate(stages=()),
        coverage=(),
    )
    return ReportData(
        name="vessels-unet",
        dense=dense,
        compact=compact,
        bench=bench(),
        stages={"dense": {"dice": 0.8201}, "round-1, just cut": {"dice": 0.7012}, "final": {"dice": 0.8172}},
        notes=("early stop: planted",),
        examples=(example(),),
        command="edgeslim compress recipes/planted.yaml --set a=b",
    )


class Page(HTMLParser):
    """Reads the page as a browser would, and keeps what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not (self._open and self._open[-1] == "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str, **wanted: str) -> int:
        return sum(name == tag and wanted.items() <= attrs.items() for name, attrs in self.tags)


@pytest.fixture(scope="module")
def report(data: ReportData) -> str:
    """The report of `data`; drawing takes a moment, so the tests share it."""
    return render(data)


@pytest.fixture(scope="module")
def page(report: str) -> Page:
    return Page(report)


def headline(data: ReportData) -> str:
    text = comparison.headline(comparison.verdicts(data.dense, data.compact, data.bench))
    return text.replace(numbers.SPACE, " ")


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
    "planted",
    [
        "the machine was busy: planted",
        "early stop: planted",
        "0.9771 0.9754 −0.0017",  # a metric and its change
        "1,862,690 311,842 5.97× fewer",
        "input 1×192×256×3 3.457 G 0.601 G 5.75× fewer",
        "Weights not measured 1.25 MB",
        "Model file 7.46 MB 1.26 MB 5.93× smaller",
        "p50 (median) 28.19 ms 8.23 ms 3.42× faster",
        "Samples n 120 120",
        "Peak memory (growth of a fresh process) 33.4 MB 33.4 MB same",
        "round-1, just cut 0.7012",
        "compact torch real 2x3x64x96 3.1e-6 3.1e-6 2.5e-5 + 1.0e-4·|b| ✓ passed",
        "1 of 3 layers were cut; 82 of 98 output channels are left.",
        "stem.weight Conv 32 → 16 50 %",
        "late.weight Conv 64 100 % stem.weight kept whole by the plan",
        "head.weight Gemm 2 100 % graph output",
        "edgeslim compress recipes/planted.yaml --set a=b",
        "ab" * 32,
        "0" * 64,
        "Planted CPU (x86_64)",
        "2,596 MHz",
        "Governor not reported",
        "192×256 pixels",
        "uint8 N × H × W × 3, NHWC",
    ],
)
def test_what_is_planted_appears(page: Page, planted: str) -> None:
    assert planted in page.text


def test_sections_come_in_the_order_of_reading(page: Page) -> None:
    ids = [attrs["id"] for tag, attrs in page.tags if tag == "section" and "id" in attrs]
    assert ids == ["figures", "plots", "pictures", "proof", "coverage", "provenance"]


def test_the_same_data_give_the_same_bytes(data: ReportData, report: str) -> None:
    assert render(data) == report


def test_the_page_is_one_file_and_asks_for_nothing(report: str, page: Page) -> None:
    text = re.sub(r'src="data:image/png;base64,[^"]*"', "", report)
    assert not re.search(r"https?:|@import|//|src=|<script|<link|<iframe|<object|\son[a-z]+=", text)
    for _, attrs in page.tags:
        for key in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert attrs.get(key, "#").startswith(("#", "data:image/png;base64,"))
        for value in attrs.values():
            assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", value))
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_ids_are_unique_and_every_reference_has_its_target(report: str) -> None:
    ids = re.findall(r'\sid="([^"]*)"', report)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\(|labelledby=")#?([\w-]+)', report)) <= set(ids)


def test_pictures_and_plots_have_words(page: Page) -> None:
    assert page.count("img") == 5
    assert all(attrs["alt"].startswith("test-00001: ") for tag, attrs in page.tags if tag == "img")
    assert page.count("svg", role="img") == page.count("svg") == 4
    labels = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"]
    assert any("98 before, 82 after" in label for label in labels)
    assert any("round-1, just cut 0.7012" in label for label in labels)


def test_colours_of_plots_follow_the_page(report: str) -> None:
    drawn = "".join(re.findall("<svg.*?</svg>", report, re.DOTALL))
    assert "var(--compact)" in drawn and "var(--ink)" in drawn
    assert not re.search(r"#[0-9a-f]{6}", drawn), "a colour that dark mode cannot change"


def test_hostile_names_are_shown_and_never_obeyed(data: ReportData) -> None:
    layer = dataclasses.replace(data.compact.coverage[0], layer=HOSTILE, reason=HOSTILE)
    compact = dataclasses.replace(
        data.compact,
        coverage=(layer,),
        classes=(HOSTILE, "b"),
        provenance={HOSTILE: HOSTILE},
        metrics={HOSTILE: 0.5},
        certificate=Certificate(stages=(stage(HOSTILE),)),
    )
    result = dataclasses.replace(
        data.bench,
        warnings=(HOSTILE,),
        machine=dataclasses.replace(data.bench.machine, os=HOSTILE, versions={HOSTILE: HOSTILE}),
    )
    text = render(
        ReportData(
            name=HOSTILE,
            dense=dataclasses.replace(data.dense, metrics={HOSTILE: 0.5}),
            compact=compact,
            bench=result,
            stages={HOSTILE: {HOSTILE: 0.5}},
            notes=(HOSTILE,),
            examples=(example(HOSTILE),),
            command=HOSTILE,
        )
    )
    page = Page(text)
    assert "<script" not in text and page.count("script") == 0
    assert page.count("style") == page.count("title") == 1
    assert page.text.count("</title></style><script>alert('x')</script>") >= 10


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


def test_references_of_a_chain_are_named_stage_by_stage(data: ReportData) -> None:
    chain = (stage("compact torch"), dataclasses.replace(stage("engine"), reference="compact torch"))
    compact = dataclasses.replace(data.compact, certificate=Certificate(stages=chain))
    assert "engine against compact torch" in Page(render(dataclasses.replace(data, compact=compact))).text


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


def test_nothing_to_warn_of_is_said(data: ReportData) -> None:
    quiet = dataclasses.replace(data, bench=dataclasses.replace(data.bench, warnings=()), notes=())
    words = "Neither the benchmark nor the run had anything to warn of."
    assert words in Page(render(quiet)).text
    slower = dataclasses.replace(quiet, bench=dataclasses.replace(bench(0.5, 0.4, 0.6), warnings=()))
    assert words not in Page(render(slower)).text


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


# ---- examples


def test_the_window_shows_where_the_nets_disagree() -> None:
    shape = (300, 400)
    blank = np.zeros(shape, np.uint8)
    compact = blank.copy()
    compact[250:260, 330:345] = 1
    frame = np.zeros((*shape, 3), np.uint8)
    whole = Example(name="x", frame=frame, mask=blank, dense=blank, compact=compact, ignore_index=255)
    part = examples.window(whole)
    assert part.mask.shape == (examples.WINDOW, examples.WINDOW) and part.frame.shape[:2] == part.mask.shape
    assert int(part.compact.sum()) == 150


def test_a_small_or_uniform_image_is_shown_whole() -> None:
    blank = np.zeros((5, 7), np.uint8)
    whole = Example(
        name="x", frame=np.zeros((5, 7, 3), np.uint8), mask=blank, dense=blank, compact=blank, ignore_index=-1
    )
    assert examples.window(whole).mask.shape == (5, 7)
    assert len(examples.gallery([whole], ()).strips) == 1


def test_differences_are_counted_on_labelled_pixels_only() -> None:
    mask = np.array([[1, 1, 0, 0, 255]], np.uint8)
    compact = np.array([[1, 0, 1, 0, 1]], np.uint8)
    frame = np.zeros((1, 5, 3), np.uint8)
    one = Example(name="x", frame=frame, mask=mask, dense=mask.clip(0, 1), compact=compact, ignore_index=255)
    found = {name: kind.astype(int).tolist()[0] for name, kind in examples.differences(one, True).items()}
    assert found == {
        "found (true positive)": [1, 0, 0, 0, 0],
        "false positive": [0, 0, 1, 0, 0],
        "false negative": [0, 1, 0, 0, 0],
    }
    caption = examples.gallery([one], ("background", "vessel")).strips[0].caption
    assert "in it 1 false positive, 1 false negative" in caption
    assert "Dice dense 1.0000, compact 0.5000; dense and compact disagree on 50.00" in caption


def test_more_classes_show_who_was_wrong() -> None:
    shown = examples.gallery([example(classes=5)], ("a", "b", "c", "d"))
    assert [key.text for key in shown.classes] == ["a", "b", "c", "d", "class 4", "not labelled, not counted"]
    assert [key.text for key in shown.differences][1:] == [
        "wrong only in compact",
        "wrong only in dense",
        "wrong in both",
    ]


@pytest.mark.parametrize("colours", [2, 5000])
def test_a_png_keeps_every_pixel(colours: int) -> None:
    flat = np.random.default_rng(0).integers(0, 1 << 24, colours)
    rgb: NDArray[np.uint8] = np.stack([flat >> 16 & 255, flat >> 8 & 255, flat & 255], axis=-1).astype(np.uint8)
    rgb = np.resize(rgb, (75, 80, 3))
    data = base64.b64decode(examples.png_uri(rgb).partition(",")[2])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), rgb)


@pytest.mark.parametrize("field", ["frame", "mask", "dense", "compact"])
def test_an_example_that_does_not_fit_is_refused(field: str) -> None:
    good = example()
    with pytest.raises(ValueError, match="'test-00001'"):
        dataclasses.replace(good, **{field: getattr(good, field)[:-1]})
    with pytest.raises(ValueError, match="'test-00001'"):
        dataclasses.replace(good, **{field: getattr(good, field).astype(np.int64)})


# ---- numbers


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


# ---- manners


def test_rendering_leaves_matplotlib_as_it_was(data: ReportData, report: str) -> None:
    import matplotlib

    def settings() -> dict[str, object]:
        return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}

    with matplotlib.rc_context({"svg.fonttype": "path", "axes.facecolor": "red", "font.size": 31.0}):
        before = settings()
        assert render(data) == report, "the user's own style must not show"
        assert settings() == before


def test_heavy_modules_load_only_for_the_report() -> None:
    code = (
        "import sys, edgeslim.bench, edgeslim.bench.report; "
        "assert not {'matplotlib', 'jinja2', 'PIL'} & set(sys.modules); "
        "import edgeslim.bench.report.html; "
        "assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
