"""Precisions and training: what they are made from, and that they make nothing be trained again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeslim.progress import Silent
from edgeslim.runtime.validation import UNLABELLED, score
from edgeslim.trainer.evaluate import module_runner
from edgeslim.trainer.precisions import VALIDATION, validation_set, write_validation
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.workspace import Workspace, open_workspace

from ..e2e.tiny import folder_section, write_pictures
from .runs import recipe


def with_precisions(workspace: Workspace) -> Workspace:
    data = {**recipe().model_dump(mode="json"), "precisions": [{"kind": "fp16"}, {"kind": "int8"}]}
    return dataclasses.replace(workspace, recipe=parse_recipe(data))


def test_a_change_of_precisions_or_frame_range_trains_nothing_again(workspace: Workspace) -> None:
    changed = with_precisions(workspace)
    wide = {"minimum": (1, 48, 48), "optimum": (1, 48, 48), "maximum": (4, 48, 48)}
    data = {**changed.recipe.model_dump(mode="json")}
    data["export"] = {**data["export"], "frame_range": wide}
    ranged = dataclasses.replace(workspace, recipe=parse_recipe(data))
    for stage in ("dense", "sparse", "round-1", "final"):
        assert workspace.key(stage) == changed.key(stage) == ranged.key(stage)
    other = parse_recipe({**recipe().model_dump(mode="json"), "seed": 1})
    assert dataclasses.replace(workspace, recipe=other).key("dense") != workspace.key("dense")


def test_calibration_is_training_images_as_they_are(workspace: Workspace) -> None:
    frames = workspace.kind.training_frames(2, workspace.image.multiple)
    assert len(frames) == 2 and all(f.dtype == np.uint8 and f.shape == (48, 48, 3) for f in frames)
    assert len(workspace.kind.training_frames(99, workspace.image.multiple)) == workspace.kind.training_images
    shown = workspace.kind.frames(1, workspace.image.multiple)[0]
    assert not any(np.array_equal(shown, frame) for frame in frames)  # nothing is calibrated on what it is scored by


def test_the_set_is_scored_as_training_scores(workspace: Workspace) -> None:
    data, run = validation_set(workspace), module_runner(workspace.fresh_module(), workspace.image)
    trained = workspace.task.evaluate(workspace.fresh_module())
    counted = score(run, data, batch=1)
    assert set(counted) == {"accuracy", "dice", "miou"}
    assert counted == {name: pytest.approx(trained[name], abs=1e-9) for name in counted}


def test_images_of_several_sizes_become_one(tmp_path: Path) -> None:
    """The border is mirrored and has no answer, so that it does not count."""
    write_pictures(tmp_path / "data", count=6, side=48)
    for kind in ("images", "masks"):
        for number in (0, 2, 4):
            path = tmp_path / "data" / kind / f"{number:02d}.png"
            Image.open(path).crop((0, 0, 40, 44)).save(path)
    table = recipe().model_dump(mode="json")
    table["data"] = folder_section(tmp_path / "data", validation=0.5, test=0.2)
    workspace = open_workspace(parse_recipe(table), tmp_path / "run", Silent())
    data = validation_set(workspace)
    sizes = {sample.mask.shape for sample in workspace.kind.data.validation}  # type: ignore[attr-defined]
    assert data.frames.shape[1:3] == tuple(map(max, zip(*sizes)))
    known = (data.targets != UNLABELLED).sum()
    assert known == sum(sample.mask.size for sample in workspace.kind.data.validation)  # type: ignore[attr-defined]


def test_the_file_is_there_while_it_is_of_use(workspace: Workspace, tmp_path: Path) -> None:
    plain = dataclasses.replace(workspace, directory=tmp_path)
    write_validation(with_precisions(plain))
    assert (tmp_path / VALIDATION).is_file()
    write_validation(plain)
    assert not (tmp_path / VALIDATION).exists()
