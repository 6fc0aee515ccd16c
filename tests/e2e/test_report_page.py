"""A real browser shows the report, in light and in dark, without asking anybody for anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeslim.bench import BenchResult, Machine, MemoryUse, Settings, Side, WarmUp, latency_from_samples
from edgeslim.bench.report.html import ReportData, render
from edgeslim.runtime import Certificate, ImageSpec, LayerCoverage, Manifest, Sizes, TensorSpec

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LIGHT, DARK = (255, 255, 255), (20, 23, 26)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    manifest = Manifest(
        name="net",
        inputs=(TensorSpec(name="frame", dtype="uint8", shape=(1, 8, 8, 3)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=(1, 2, 8, 8)),),
        image=ImageSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        bench_size=(8, 8),
        sizes=Sizes(parameters=1),
        certificate=Certificate(stages=()),
        coverage=(LayerCoverage(layer="stem." * 20, operator="Conv", width_before=32, width_after=16),),
    )
    side = Side(
        name="net",
        manifest_sha256="ab" * 32,
        parameters=1,
        macs=None,
        warm_up=WarmUp(calls=1, seconds=0.1, settled=True, tolerance=0.03),
        latency=latency_from_samples(range(1_000_000, 1_100_000, 1_000)),
        memory=MemoryUse(file_bytes=1, weight_bytes=None, arena=None, peak_rss_bytes=None),
    )
    machine = Machine(
        board=None,
        cpu=None,
        architecture="x",
        logical_cores=None,
        usable_cores=None,
        cpu_quota=None,
        frequency_mhz=None,
        governor=None,
        load_1min=None,
        memory_bytes=None,
        os="x",
        python="3",
    )
    settings = Settings(
        backend="fake", threads=1, spin=False, samples=100, seconds=1.0, frame_size=(8, 8), seed=0, order="A"
    )
    bench = BenchResult(
        written_by="0", settings=settings, machine=machine, subject=side, against=None, speedup=None, warnings=()
    )
    data = ReportData(
        name="net",
        dense=manifest,
        compact=manifest,
        bench=bench,
        stages={"dense": {"dice": 0.5}},
        notes=(),
        examples=(),
        command="edgeslim",
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(("scheme", "background"), [(1, LIGHT), (0, DARK)])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_follows_the_colour_scheme(
    page: Path, tmp_path: Path, scheme: int, background: tuple[int, int, int], width: int
) -> None:
    shot = tmp_path / "shot.png"
    command = [
        str(BROWSER),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--window-size={width},1500",
        f"--screenshot={shot}",
        "--enable-logging=stderr",
        page.as_uri(),
    ]
    log = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stderr
    assert "Content Security Policy" not in log, "the page asked for something"
    seen = np.asarray(Image.open(shot).convert("RGB"))
    assert seen.shape[1] == width
    assert tuple(seen[2, 2]) == background
    assert (seen[:, -4:] == background).all(), "something runs over the right edge"
    assert len(np.unique(seen.reshape(-1, 3), axis=0)) > 100, "nothing is drawn"
