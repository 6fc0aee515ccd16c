"""A front is so many runs: each point is what a plain run of its recipe gives, and goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeslim.bench.front import Front
from edgeslim.errors import BudgetError, ConfigError, UnsupportedGraphError
from edgeslim.progress import Silent
from edgeslim.runtime import load, read_bundle
from edgeslim.trainer.compress import compress
from edgeslim.trainer.front import compress_front, level_points, parent_of
from edgeslim.trainer.recipe import MacsBudget, Recipe
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.reexport import export_run

from .exports import content
from .runs import Interrupted
from .test_sparsity_stages import STEP, StopIn
from .test_sparsity_stages import recipe as made

pytestmark = pytest.mark.usefixtures("one_thread")

BENCH = {"samples": 20, "seconds": 0.5}
PRUNE = {
    "criterion": {"name": "l1"},
    "budget": {"name": "macs", "keep": 0.3},
    "width_multiple": 1,
    "min_width": 1,
    "schedule": {"rounds": 2, "between": STEP},
}


def recipe(weights: Mapping[str, Any] | None = None, **more: Any) -> Recipe:
    return made(weights, **{"prune": PRUNE, "bench": BENCH, **more})


class Stages(Silent):
    """Which stages were told, trained or reused."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: list[str] = []

    def stage(self, name: str, total: int | None = None) -> None:
        self.stages.append(name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Front, Stages]:
    """A front of three points. Tests must not change its directory."""
    directory, progress = tmp_path_factory.mktemp("front") / "run", Stages()
    return directory, compress_front(recipe(), directory, 3, progress, "edgeslim planted"), progress


Finished = tuple[Path, Front, Stages]


@pytest.mark.slow
def test_every_point_has_a_bundle_with_its_proof_and_its_scores(finished: Finished) -> None:
    directory, front, _ = finished
    assert [point.name for point in front.points] == ["macs-0.6694", "macs-0.4481", "macs-0.3"]
    assert front == Front.from_json((directory / "front.json").read_text())
    dense = front.dense.net.macs
    assert dense is not None
    for point, kept in zip(front.points, (0.6694, 0.4481, 0.3)):
        place = directory / "front" / point.name
        bundle = read_bundle(place / "compact.bundle")
        assert bundle.manifest.certificate.passed
        assert bundle.manifest.metrics == point.net.metrics and "dice" in point.validation
        assert point.net.macs is not None and point.net.macs <= kept * dense
        assert bundle.files["report.html"] == (place / "report.html").read_bytes()
        assert json.loads((place / "result.json").read_text())["speedup"]["ratio"] == point.speedup.ratio  # type: ignore[union-attr]
        with load(place / "compact.bundle") as session:
            session.verify_golden()
            assert all(np.isfinite(a).all() for a in session.run(np.zeros((48, 48, 3), np.uint8)).values())
    macs = [point.net.macs or 0 for point in front.points]
    assert macs == sorted(macs, reverse=True)


@pytest.mark.slow
def test_the_front_is_decided_by_validation_scores(finished: Finished) -> None:
    directory, front, _ = finished
    for point in front.points:
        stages = json.loads((directory / "front" / point.name / "result.json").read_text())["stages"]
        assert point.validation == stages["final"]
    assert front.metric == "dice"


@pytest.mark.slow
def test_what_no_budget_has_a_say_in_is_trained_once(finished: Finished) -> None:
    directory, _, progress = finished
    assert [progress.stages.count(name) for name in ("data", "analysis", "dense", "sparse", "export dense")] == [1] * 5
    for number, name in enumerate(("macs-0.6694", "macs-0.4481", "macs-0.3"), start=1):
        assert f"{number}/3 {name}: final" in progress.stages
    shared = {path.name for path in (directory / "stages").iterdir()}
    assert shared == {"dense", "sparse", "round-1", "final"}  # the last two are the recipe's own point
    assert {path.name for path in (directory / "front/macs-0.4481/stages").iterdir()} == {"round-1", "final"}
    assert not (directory / "front/macs-0.3/stages").exists()


@pytest.mark.slow
def test_the_report_has_all_points_and_their_notes(finished: Finished) -> None:
    directory, front, _ = finished
    text = (directory / "report.html").read_text()
    for point in front.points:
        assert f'href="front/{point.name}/report.html"' in text
        assert any(note.startswith(f"{round(3 * point.share)}/3 {point.name}: round-1: ") for note in front.notes)
        own = json.loads((directory / "front" / point.name / "result.json").read_text())["notes"]
        assert any("different training images" in note for note in own), "what is said of all of them"
        assert any(note.startswith("round-1: ") for note in own) and not any(note[1:3] == "/3" for note in own)
        assert "edgeslim planted" in (directory / "front" / point.name / "report.html").read_text()
    assert all(note.split(": ", 1)[-1][:20] in text for note in front.notes)


@pytest.mark.slow
def test_every_point_is_what_a_plain_run_makes_of_its_recipe(finished: Finished, tmp_path: Path) -> None:
    """Bit for bit, whatever other points there are. The recipe's own point and a plain run have the same stages."""
    directory, _, _ = finished
    for name, stages in (("macs-0.4481", directory / "front/macs-0.4481/stages"), ("macs-0.3", directory / "stages")):
        own = parse_recipe(json.loads((directory / "front" / name / "recipe.json").read_text()))
        run = tmp_path / name
        compress(own, run, Silent())
        for stage in ("round-1", "final"):
            assert content(run / "stages" / stage) == content(stages / stage), (name, stage)
        seen, wanted = (read_bundle(place / "compact.bundle") for place in (directory / "front" / name, run))
        assert seen.model == wanted.model
    progress = Silent()
    compress_front(recipe(), tmp_path / "macs-0.3", 2, progress)
    assert sum("reused the finished checkpoint" in note for note in progress.notes) == 4


@pytest.mark.slow
def test_a_point_is_exported_again(finished: Finished, tmp_path: Path) -> None:
    directory, front, _ = finished
    for point in front.points:
        place = directory / "front" / point.name
        assert parent_of(place) == directory
        again = read_bundle(export_run(place, tmp_path / f"{point.name}.bundle", Silent()))
        assert again.model == read_bundle(place / "compact.bundle").model
        assert again.files["report.html"] == (place / "report.html").read_bytes()
    assert parent_of(directory) is None


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["2/3 macs-0.4481: round-1", "3/3 macs-0.3: final"])
def test_a_front_that_was_stopped_goes_on(finished: Finished, tmp_path: Path, stage: str) -> None:
    directory, whole, _ = finished
    with pytest.raises(Interrupted):
        compress_front(recipe(), tmp_path, 3, StopIn(stage, 3))
    assert read_bundle(tmp_path / "front/macs-0.6694/compact.bundle").manifest.certificate.passed
    assert not (tmp_path / "front.json").exists()
    progress = Silent()
    front = compress_front(recipe(), tmp_path, 3, progress)
    assert f"{stage}: continued at step 2" in progress.notes
    assert [point.validation for point in front.nets] == [point.validation for point in whole.nets]
    for place in ("stages", "front/macs-0.6694/stages", "front/macs-0.4481/stages"):
        for made_stage in (directory / place).iterdir():
            assert content(tmp_path / place / made_stage.name) == content(made_stage), made_stage


@pytest.mark.slow
def test_more_points_later_use_what_is_there(finished: Finished, tmp_path: Path) -> None:
    compress_front(recipe(), tmp_path, 2, Silent())
    progress = Silent()
    front = compress_front(recipe(), tmp_path, 4, progress)
    assert len(front.points) == 4
    reused = [note for note in progress.notes if "reused the finished" in note]
    assert len(reused) == 2 + 2 * 2, "dense and sparse, and two stages of two points"
    again = compress_front(recipe(), tmp_path, 3, Silent())
    (note,) = (note for note in again.notes if "points of an earlier front" in note)
    assert "macs-0.5477" in note and "macs-0.4481" not in note


@pytest.mark.slow
def test_levels_with_the_same_plan_are_one_point(tmp_path: Path) -> None:
    """Of 8 and 16 channels in steps of 8 there are few widths."""
    prune = {**PRUNE, "budget": {"name": "ratio", "ratio": 0.5}, "width_multiple": 8, "min_width": 8}
    front = compress_front(recipe(prune=prune), tmp_path, 3, Silent())
    assert [(point.name, point.same_plan) for point in front.points] == [
        ("ratio-0.37", ("ratio-0.2063",)),
        ("ratio-0.5", ()),
    ]
    assert any(
        note.startswith("ratio-0.37 cuts the same channels as ratio-0.2063: they are one") for note in front.notes
    )
    assert "2/3 ratio-0.37: no channel was cut: the level lies above the next narrower widths" in front.notes
    assert front.points[0].net.macs == front.dense.net.macs
    assert "the same plan as ratio-0.2063" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_a_gradual_schedule_shares_the_dense_net_alone(tmp_path: Path) -> None:
    sparsify = {"fit": {**STEP, "steps": 10}, "regularizers": []}
    prune = {**PRUNE, "schedule": {"name": "gradual", "cuts": 2}}
    front = compress_front(recipe(sparsify=sparsify, prune=prune), tmp_path, 2, Silent())
    assert {path.name for path in (tmp_path / "front/macs-0.5477/stages").iterdir()} == {"sparse", "final"}
    assert (front.points[0].net.macs or 0) > (front.points[1].net.macs or 0)


@pytest.mark.slow
def test_channels_before_regularizers_share_the_dense_net_alone(tmp_path: Path) -> None:
    progress = Stages()
    compress_front(recipe(order=["prune", "sparsify", "weights"]), tmp_path, 2, progress)
    assert [name for name in progress.stages if name.endswith("sparse")] == [
        "1/2 macs-0.5477: sparse",
        "2/2 macs-0.3: sparse",
    ]


@pytest.mark.slow
def test_pruned_weights_are_shared_and_stay_zero(tmp_path: Path) -> None:
    weights = {"method": "magnitude", "fraction": 0.5, "finetune": STEP}
    progress = Stages()
    compress_front(recipe(weights=weights), tmp_path, 2, progress)
    assert progress.stages.count("weights") == 1
    for name in ("macs-0.5477", "macs-0.3"):
        sizes = read_bundle(tmp_path / "front" / name / "compact.bundle").manifest.sizes
        assert sizes.weights and sizes.nonzero_weights is not None and sizes.nonzero_weights < 0.7 * sizes.weights


def test_a_budget_out_of_reach_names_the_point_before_anything_is_trained(tmp_path: Path) -> None:
    prune = {**PRUNE, "budget": {"name": "macs", "keep": 0.05}, "min_width": 4}
    with pytest.raises(BudgetError, match=r"^point 2/2 macs-0\.05: 0\.05 of the dense net's MACs cannot be reached"):
        compress_front(recipe(prune=prune), tmp_path, 2, Silent())
    assert not (tmp_path / "stages").exists()


@pytest.mark.slow
def test_a_point_that_fails_leaves_those_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeslim.trainer.budget import Macs

    select = Macs.select

    def planted(self: Macs, channels: Any, scores: Any, share: float = 1.0) -> frozenset[int]:
        if self.keep == 0.3 and len(set(scores.tolist())) > 1:  # not the check with equal scores
            raise BudgetError("planted")
        return select(self, channels, scores, share)

    monkeypatch.setattr(Macs, "select", planted)
    with pytest.raises(BudgetError, match=r"^point 2/2 macs-0\.3: planted"):
        compress_front(recipe(), tmp_path, 2, Silent())
    assert read_bundle(tmp_path / "front/macs-0.5477/compact.bundle").manifest.certificate.passed


def test_a_net_without_channels_to_cut_has_no_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from . import nets

    (tmp_path / "front_nets.py").write_text(Path(nets.__file__).read_text())
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnsupportedGraphError, match="a front needs channels that can be pruned"):
        compress_front(recipe(model={"name": "front_nets:Fixed"}), tmp_path / "run", 2, Silent())


def test_points_are_the_recipe_at_other_levels() -> None:
    whole = recipe()
    points = level_points(whole, 2)
    assert points[-1].recipe is whole
    assert points[0].recipe.name == "tiny-macs-0.5477"
    assert points[0].prune.budget == MacsBudget(name="macs", keep=0.5477)
    same = {"name", "prune"}
    assert points[0].recipe.model_dump(exclude=same) == whole.model_dump(exclude=same)


@pytest.mark.parametrize("count", [1, 0, -3])
def test_a_front_of_one_is_none(count: int) -> None:
    with pytest.raises(ConfigError, match=f"a front of {count} points is none; the least is 2"):
        level_points(recipe(), count)


def test_a_recipe_without_channels_to_prune_has_no_budget() -> None:
    weights = {"method": "magnitude", "fraction": 0.5, "finetune": STEP}
    with pytest.raises(ConfigError, match="the recipe has no section prune"):
        level_points(recipe(prune=None, weights=weights), 2)


def test_more_points_than_there_are_levels() -> None:
    prune = {**PRUNE, "budget": {"name": "macs", "keep": 0.9}}
    with pytest.raises(ConfigError, match="2000 points do not fit between the dense net and the recipe's budget"):
        level_points(recipe(prune=prune), 2000)
