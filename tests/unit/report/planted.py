"""Figures and pictures made up for a report, and a reader of its page."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

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
from edgeslim.bench.report import comparison, numbers
from edgeslim.bench.report.html import Example, ReportData
from edgeslim.runtime import Stage

VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})


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
            order="ABAB",
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


def headline(data: ReportData) -> str:
    text = comparison.headline(comparison.verdicts(data.dense, data.compact, data.bench))
    return text.replace(numbers.SPACE, " ")
