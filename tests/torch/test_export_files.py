"""What an export writes: the same bytes every time, archives that hold the same, later additions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeslim.errors import (
    ExportError,
)
from edgeslim.exporter.bundle import amend_bundle
from edgeslim.exporter.export import export as export_function
from edgeslim.runtime import load, read_bundle

from .exports import FRAMES, content, left_over, pruned


def test_the_same_net_gives_the_same_bytes(tmp_path: Path) -> None:
    for simplify in (True, False):
        paths = [
            export_function(pruned(), tmp_path / f"{simplify}-{i}", name="net", frames=FRAMES, simplify_graph=simplify)
            for i in range(2)
        ]
        first, second = (content(path) for path in paths)
        assert first == second
        assert sorted(first) == ["golden.npz", "manifest.json", "model.onnx", "plan.json"]


FRESH = """
import hashlib, pathlib, sys
import torch
torch.set_num_threads(1)
import edgeslim
from edgeslim.trainer.models.unet import UNet
torch.manual_seed(0)
net = UNet(width=8, depth=2)
pruned = edgeslim.prune(net, torch.randn(1, 3, 32, 32), ratio=0.5)
edgeslim.export(pruned, "net.bundle")
for file in sorted(pathlib.Path("net.bundle").iterdir()):
    print(file.name, hashlib.sha256(file.read_bytes()).hexdigest())
"""


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    """With another seed of Python's string hashes: nothing may come in the order of a set."""
    seen = []
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        child = subprocess.run(
            [sys.executable, "-c", FRESH],
            cwd=tmp_path / seed,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert child.returncode == 0, child.stderr
        seen.append(child.stdout)
    assert seen[0] == seen[1]
    assert len(seen[0].splitlines()) == 4


def test_an_archive_holds_the_same(tmp_path: Path) -> None:
    folder = export_function(pruned(), tmp_path / "net.bundle", name="net", frames=FRAMES)
    archive = export_function(pruned(), tmp_path / "net.zip", name="net", frames=FRAMES, archive=True)
    assert archive.is_file()
    assert read_bundle(archive).files == read_bundle(folder).files
    with load(archive) as session:
        assert session.verify_golden().max_abs == 0.0
        assert session.run(FRAMES[0]).keys() == {o.name for o in session.manifest.outputs}


@pytest.mark.parametrize("archive", [False, True])
def test_scores_and_a_report_are_added_later(tmp_path: Path, archive: bool) -> None:
    path = export_function(pruned(), tmp_path / "net", frames=FRAMES, metrics={"dice": 0.5}, archive=archive)
    before = read_bundle(path)
    assert amend_bundle(path, metrics={"iou": 0.25}, files={"report.html": b"<p>new</p>"}) == path
    after = read_bundle(path)
    assert after.manifest.metrics == {"iou": 0.25}
    assert after.files == {**before.files, "report.html": b"<p>new</p>"}
    for field in ("certificate", "coverage", "sizes", "golden", "provenance", "image", "inputs", "outputs", "name"):
        assert getattr(after.manifest, field) == getattr(before.manifest, field)
    amend_bundle(path, files={"report.html": b"<p>newer</p>"})
    assert read_bundle(path).manifest.metrics == {"iou": 0.25}
    assert read_bundle(path).files["report.html"] == b"<p>newer</p>"
    with pytest.raises(ExportError, match="is written here"):
        amend_bundle(path, files={"model.onnx": b""})
    assert read_bundle(path).files["report.html"] == b"<p>newer</p>"
    assert left_over(tmp_path) == ["net"]
