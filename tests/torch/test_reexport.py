"""A finished run is exported again from its checkpoints alone."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from edgeslim.errors import (
    CheckpointError,
    ConfigError,
)
from edgeslim.progress import Silent
from edgeslim.runtime import read_bundle
from edgeslim.trainer.bundles import export_net
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.reexport import export_run
from edgeslim.trainer.stages import train_and_prune
from edgeslim.trainer.workspace import open_workspace

from . import nets
from .exports import content


@pytest.mark.slow
@pytest.mark.parametrize("net", ["HardCoded", "Plain"])
def test_a_finished_run_is_exported_again(tmp_path: Path, net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained compact or, where the class hard-codes its widths, masked: the checkpoint is all it takes."""
    shutil.copy(nets.__file__, tmp_path / "own_nets.py")
    monkeypatch.syspath_prepend(tmp_path)
    step = {"steps": 2, "batch_size": 2, "evaluate_every": 2}
    recipe = parse_recipe(
        {
            "name": "again",
            "model": {"name": f"own_nets:{net}"},
            "data": {"name": "vessels", "train": 4, "validation": 0.25, "test": 1, "size": [64, 64]},
            "augment": {"crop": [32, 32]},
            "train": step,
            "prune": {
                "criterion": {"name": "l1"},
                "budget": {"name": "ratio", "ratio": 0.5},
                "width_multiple": 1,
                "min_width": 1,
                "schedule": {"rounds": 2, "between": step},
            },
            "finetune": {"fit": step},
        }
    )
    run, progress = tmp_path / "run", Silent()
    workspace = open_workspace(recipe, run, progress)
    trained = train_and_prune(workspace, progress)
    (run / "recipe.json").write_text(recipe.model_dump_json())
    masked = any("trains masked" in note for note in progress.notes)
    assert masked == (net == "HardCoded")
    first = export_net(workspace, trained.pruned, "compact", progress)
    again = export_run(run, tmp_path / "again.bundle", progress)
    assert content(again).keys() == content(first).keys()  # no report: none was written
    assert read_bundle(again).model == read_bundle(first).model
    assert read_bundle(again).manifest.provenance == read_bundle(first).manifest.provenance
    assert set(read_bundle(again).manifest.metrics) >= {"dice", "auc"}  # scored anew
    for place in (run / "mine.bundle", run / "dense.bundle", run / "stages" / "x"):
        with pytest.raises(ConfigError, match="lies inside the run"):
            export_run(run, place, progress)
    dense = read_bundle(export_run(run, tmp_path / "dense.bundle", progress, dense=True)).manifest
    assert dense.sizes.parameters > read_bundle(again).manifest.sizes.parameters
    table = json.loads((run / "recipe.json").read_text())
    table["prune"]["min_width"] = 2
    (run / "recipe.json").write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match="belongs to another run"):
        export_run(run, tmp_path / "edited.bundle", progress)
    if net == "HardCoded":
        return
    source = (
        (tmp_path / "own_nets.py").read_text().replace("unit(3, 8)", "unit(3, 6)").replace("unit(8, 8)", "unit(6, 8)")
    )
    (tmp_path / "own_nets.py").write_text(source)
    monkeypatch.delitem(sys.modules, "own_nets")
    with pytest.raises(CheckpointError, match="does not fit this model"):
        export_run(run, tmp_path / "changed.bundle", progress, dense=True)
    assert not (tmp_path / "edited.bundle").exists() and not (tmp_path / "changed.bundle").exists()
