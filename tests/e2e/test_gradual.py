"""A recipe that cuts while it trains, from the command to the bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeslim.runtime import load, read_bundle

from .tiny import FIT, RECIPE, Cli, write_recipe

pytestmark = pytest.mark.slow
SPARSIFY = {
    "fit": {**FIT, "steps": 10},
    "regularizers": [{"name": "redundancy", "warmup_steps": 1, "ramp_steps": 2}, {"name": "l0"}],
}
PRUNE = {**RECIPE["prune"], "schedule": {"name": "gradual", "cuts": 2}}


def test_a_run_with_a_gradual_schedule(tmp_path: Path, cli: Cli) -> None:
    recipe, run = write_recipe(tmp_path / "tiny.yaml", sparsify=SPARSIFY, prune=PRUNE), tmp_path / "run"
    done = cli("compress", recipe, "--out", run, "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    stages = list(outcome["stages"])
    assert stages[0] == "dense" and stages[-2:] == ["sparse", "final"]
    assert {"cut-2, before", "cut-2, just cut", "cut-2, mended"} <= set(stages)
    assert outcome["compact"]["macs"] <= 0.5 * outcome["dense"]["macs"]
    assert any("crops of those are looked at" in note for note in outcome["notes"])
    bundle = read_bundle(run / "compact.bundle")
    assert bundle.manifest.certificate.passed
    assert "cut-2, mended" in (run / "report.html").read_text()
    with load(run / "compact.bundle") as session:
        session.verify_golden()
        assert all(np.isfinite(a).all() for a in session.run(np.zeros((64, 64, 3), np.uint8)).values())

    again = cli("compress", recipe, "--out", run, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["stages"] == outcome["stages"]
    assert "sparse: reused the finished checkpoint" in again.stdout + again.stderr


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"sparsify": None}, "sparsify is missing"),
        ({"weights": {"fraction": 0.5, "finetune": FIT}}, "leave out weights"),
        ({"sparsify": {"fit": FIT, "regularizers": []}}, "ask for fewer cuts, or more steps"),
    ],
)
def test_recipes_that_cannot_be(tmp_path: Path, cli: Cli, sections: dict[str, object], said: str) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", **{"sparsify": SPARSIFY, "prune": PRUNE, **sections})
    done = cli("compress", recipe, "--out", tmp_path / "run")
    assert done.returncode == 1 and said in " ".join(done.stderr.split()), done.stderr
    assert not (tmp_path / "run").exists()
