"""A recipe that prunes single weights, from the command to the stored bytes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeslim.runtime import load, read_bundle

from .tiny import FIT, Cli, write_recipe

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
WEIGHTS = {"method": "magnitude", "fraction": 0.9, "finetune": FIT}


def test_a_run_with_pruned_weights(tmp_path: Path, cli: Cli) -> None:
    recipe, run = write_recipe(tmp_path / "tiny.yaml", weights=WEIGHTS), tmp_path / "run"
    done = cli("compress", recipe, "--out", run, "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert list(outcome["stages"])[:4] == ["dense", "sparse", "weights, just pruned", "weights"]
    assert any("weights pruned (90" in note for note in outcome["notes"])
    assert any(note.startswith("dead units cut") for note in outcome["notes"])
    bundle = read_bundle(outcome["bundle"])
    stored = bundle.manifest.files["model.sparse"].bytes
    assert outcome["compact"]["file_bytes"] == stored == (run / "compact.bundle" / "model.sparse").stat().st_size
    assert not (run / "compact.bundle" / "model.onnx").exists()
    assert (run / "dense.bundle" / "model.onnx").exists()
    with load(run / "compact.bundle") as session:
        session.verify_golden()
        answer = session.run(np.zeros((64, 64, 3), np.uint8))
    assert all(np.isfinite(array).all() for array in answer.values())

    shown = cli("inspect", run / "compact.bundle")
    assert shown.returncode == 0, shown.stderr
    sizes = bundle.manifest.sizes
    for words in (
        f"{sizes.nonzero_weights:,} of {sizes.weights:,} are not zero",
        f"{sizes.compression:.2f}x = {sizes.dense_weights:,} weights of the dense net / {sizes.nonzero_weights:,}",
        f"{stored:,} B in model.sparse, {len(bundle.model) / stored:.2f}x less than model.onnx",
        "schema 3",
    ):
        assert words in " ".join(shown.stdout.split()), words
    table = json.loads(cli("inspect", run / "compact.bundle", "--json").stdout)
    assert table["sparse"]["model"]["bytes"] == len(bundle.model)

    archive = tmp_path / "net.zip"
    assert cli("export", run, archive, "--archive").returncode == 0
    assert read_bundle(archive).model == bundle.model

    damaged = bytearray((run / "compact.bundle" / "model.sparse").read_bytes())
    damaged[-1] ^= 1
    (run / "compact.bundle" / "model.sparse").write_bytes(damaged)
    refused = cli("inspect", run / "compact.bundle")
    assert refused.returncode == 1 and "model.sparse has SHA-256" in " ".join(refused.stderr.split())


def test_a_dense_bundle_says_how_it_is_stored(tmp_path: Path, cli: Cli) -> None:
    recipe, run = write_recipe(tmp_path / "tiny.yaml"), tmp_path / "run"
    assert cli("compress", recipe, "--out", run).returncode == 0
    shown = cli("inspect", run / "dense.bundle")
    assert "B in model.onnx" in shown.stdout and "model.sparse" not in shown.stdout


def test_the_python_of_the_methods_page_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs/methods/weight_pruning.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sparse.bundle" / "model.sparse").is_file()
