"""The page of a front: every net, where it stands, and the way to its own report."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgeslim.bench.front import Front
from edgeslim.bench.report import front_plot
from edgeslim.bench.report.front import FrontPage, front_rows, headline, render_front
from edgeslim.bench.report.numbers import SPACE
from edgeslim.cli.front_tables import front_table

from ..fronts import front, point
from .planted import Page, bench

HOSTILE = "</title><script>alert('x')</script>\"'&$\\frac{$"


def page_of(found: Front, **more: object) -> FrontPage:
    links = {net.name: f"front/{net.name}/report.html" for net in found.points}
    page = FrontPage(front=found, benches=[bench()] * len(found.points), links=links, command="edgeslim compress x")
    return dataclasses.replace(page, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def text() -> str:
    return render_front(page_of(front()))


def test_what_is_planted_appears(text: str) -> None:
    page = Page(text)
    words = page.text.replace(SPACE, " ")
    for planted in (
        "2 of 3 pruned nets on the front; the fastest is 3.40× (3.20–3.60) as fast, Dice 0.8000 → 0.7900",
        "macs-0.64 0.8100 0.8000 26.7 ms 1.50× (1.45–1.55)",
        "dominated by macs-0.26",
        "front; the same plan as macs-0.3",
        "2/3 macs-0.41: planted",
        "the machine was busy: planted",
        "Planted CPU",
        "edgeslim compress x",
        "milliseconds a frame, median",
        "Dice, validation images",
        "hollow: dominated",
    ):
        assert planted in words, planted
    links = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    assert links == {f"front/macs-{level}/report.html" for level in ("0.64", "0.41", "0.26")}


def test_the_page_loads_nothing_and_its_bytes_depend_on_the_data_alone(text: str) -> None:
    assert not re.search(r"https?:|@import|src=|<script|<link|<iframe", text)
    assert render_front(page_of(front())) == text


def test_hostile_names_are_text(text: str) -> None:
    planted = dataclasses.replace(front(point(HOSTILE, 1.0, 0.8, (2.0, 1.9, 2.1))), name=HOSTILE, notes=(HOSTILE,))
    page = Page(render_front(page_of(planted, command=HOSTILE)))
    assert page.count("script") == 0
    assert page.text.count("alert('x')") >= 4


def test_a_front_without_pruned_nets_on_it_says_so() -> None:
    assert headline(front(point("a", 1.0, 0.7, (0.9, 0.8, 0.95)))).startswith("None of 1 pruned nets is on the front")


def test_a_benchmark_is_missing() -> None:
    with pytest.raises(ValueError, match="2 benchmarks of 3 points"):
        page_of(front(), benches=[bench()] * 2)


def test_rows_say_what_was_not_measured() -> None:
    found = front()
    net = dataclasses.replace(found.dense.net, metrics={}, macs=None)
    row = front_rows(dataclasses.replace(found, dense=dataclasses.replace(found.dense, net=net)))[0]
    assert (row.test, row.macs) == ("not measured", "not measured")


def test_the_terminal_has_every_net_and_who_beats_it() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(front_table(front()))
    shown = " ".join(console.export_text().split())
    for word in ("dense", "macs-0.64", "macs-0.41", "macs-0.26", "dominated", "1.50× (1.45–1.55)", "26.7 ms"):
        assert word in shown.replace(SPACE, " "), word


def test_the_interval_of_a_latency_is_that_of_the_speedup_at_the_dense_median() -> None:
    found = front()
    assert front_plot.interval_ms(found.dense, found.dense) == (40.0, 40.0)
    low, high = front_plot.interval_ms(found.points[0], found.dense)
    assert (low, high) == (pytest.approx(40 / 1.55), pytest.approx(40 / 1.45))


@given(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 180)), min_size=1, max_size=4))
def test_labels_of_a_few_nets_meet_neither_each_other_nor_a_marker(at: list[tuple[float, float]]) -> None:
    names = [f"macs-0.{number}" for number in range(len(at))]
    places = front_plot.label_places(names, at)
    boxes = [front_plot.label_box(name, x, y + above) for name, (x, y), above in zip(names, at, places)]
    for number, box in enumerate(boxes):
        assert not any(front_plot.meet(box, other) for other in boxes[:number])
        for x, y in at:
            assert not (box[0] < x < box[2] and box[1] < y < box[3])
