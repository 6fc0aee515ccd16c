"""The page says what was planted, is one file, and asks nobody for anything."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys

import pytest
from rich.console import Console

from edgeslim.bench.report.html import ReportData, render
from edgeslim.bench.report.table import bench_table
from edgeslim.runtime import Certificate

from .planted import Page, example, stage

HOSTILE = "</title></style><script>alert('x')</script>\"'&$\\frac{$ 漢字\n"


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


def test_references_of_a_chain_are_named_stage_by_stage(data: ReportData) -> None:
    chain = (stage("compact torch"), dataclasses.replace(stage("engine"), reference="compact torch"))
    compact = dataclasses.replace(data.compact, certificate=Certificate(stages=chain))
    assert "engine against compact torch" in Page(render(dataclasses.replace(data, compact=compact))).text


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


def test_gpu_and_jetson_are_named_where_they_are_known(data: ReportData, report: str) -> None:
    machine = dataclasses.replace(
        data.bench.machine, gpu="Planted GPU", driver="540.4.0", power_mode="MAXN", l4t="36.4.4", jetpack="6.2.1"
    )
    bench = dataclasses.replace(data.bench, machine=machine)
    page = render(dataclasses.replace(data, bench=bench))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(bench_table(bench))
    caption = console.export_text()
    for value in ("Planted GPU", "540.4.0", "MAXN", "36.4.4", "6.2.1"):
        assert value in page
        assert value in caption
    assert "NVIDIA driver" not in report, "a machine without one has no row for it"
