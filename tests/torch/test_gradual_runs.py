"""Training runs that cut while they train: their best weights, their resumption, and whole recipes with them."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import zlib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeslim.errors import BudgetError, InvariantError
from edgeslim.progress import Progress, Silent
from edgeslim.runtime import read_bundle
from edgeslim.trainer.budget import Ratio, WidthLimits
from edgeslim.trainer.bundles import export_net
from edgeslim.trainer.checkpoint import load_checkpoint
from edgeslim.trainer.criteria import criterion
from edgeslim.trainer.fit import FitResult, fit
from edgeslim.trainer.fit_state import FitState
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe import EarlyStop, ExportSection, FitSection, Recipe
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.reexport import export_run
from edgeslim.trainer.schedules import Gradual, GradualCuts, Scoring
from edgeslim.trainer.stages import train_and_prune
from edgeslim.trainer.task import Task
from edgeslim.trainer.workspace import Workspace, open_workspace

from . import nets
from .runs import STEPS, Interrupted, StopAt, content, falling, identical, recipe, section

pytestmark = pytest.mark.usefixtures("one_thread")

AT = (2, 4, 7, 9)
L1_ALONE = Scoring(criterion=criterion("l1"), images=np.empty(0, np.float32))
NARROW = Ratio(ratio=0.7, limits=WidthLimits(multiple=1, minimum=1))


@pytest.fixture(scope="module")
def analysed(workspace: Workspace) -> PrunedModel:
    return PrunedModel.from_module(workspace.fresh_module(), torch.from_numpy(workspace.calibration(1)))


@dataclasses.dataclass
class Run:
    """What came out of `gradually`."""

    result: FitResult
    module: nn.Module
    net: PrunedModel
    cuts: GradualCuts


def gradually(
    workspace: Workspace,
    analysed: PrunedModel,
    directory: Path | None = None,
    *,
    changed: FitSection | None = None,
    progress: Progress | None = None,
    task: Task | None = None,
    pressure: float = 3.0,
) -> Run:
    """12 steps with three cuts: after steps 4, 7 and 9."""
    module, task = workspace.fresh_module(), task or workspace.task
    net = PrunedModel(workspace.fresh_module().eval(), torch.from_numpy(workspace.calibration(1)), analysed.channels)
    cuts = GradualCuts(
        net, Gradual(at=AT, law="geometric", pressure=pressure), L1_ALONE, NARROW, evaluate=task.evaluate
    )
    with closing(cuts):
        result = fit(
            module,
            task,
            changed or section(),
            name="stage",
            seed=0,
            key="key",
            cutter=cuts,
            directory=directory,
            progress=progress,
        )
    cuts.check(module, result.best_step)
    return Run(result=result, module=module, net=net, cuts=cuts)


@pytest.mark.slow
@pytest.mark.parametrize(("every", "pressure"), [(1, 3.0), (2, 0.0), (5, 3.0)])
def test_a_run_resumed_from_any_step_equals_an_uninterrupted_one(
    workspace: Workspace, analysed: PrunedModel, tmp_path: Path, every: int, pressure: float
) -> None:
    """Stopped before, between, right before and right after cuts, and once between evaluation and checkpoint."""
    changed = section(evaluate_every=every, weight_decay=1e-3, lr=1e-2)
    whole = gradually(workspace, analysed, tmp_path / "whole", changed=changed, pressure=pressure)
    assert len(whole.cuts.scores) == 6 and len(whole.net.cut) > 0
    for step, call in [(s, 1) for s in range(1, STEPS)] + [(s, 2) for s in range(every, STEPS, every) if every > 1]:
        directory = tmp_path / f"stopped-{step}-{call}"
        with pytest.raises(Interrupted):
            gradually(workspace, analysed, directory, changed=changed, progress=StopAt(step, call), pressure=pressure)
        resumed = gradually(workspace, analysed, directory, changed=changed, pressure=pressure)
        assert (resumed.result, resumed.net.plan) == (whole.result, whole.net.plan), step
        assert list(resumed.cuts.scores.items()) == list(whole.cuts.scores.items()), step
        assert identical(resumed.module, whole.module), step
        assert content(directory) == content(tmp_path / "whole"), step


def test_a_finished_run_is_reused_with_its_plan(workspace: Workspace, analysed: PrunedModel, tmp_path: Path) -> None:
    whole = gradually(workspace, analysed, tmp_path / "run")
    again = gradually(workspace, analysed, tmp_path / "run")
    assert again.result == dataclasses.replace(whole.result, reused=True)
    assert (again.net.plan, again.cuts.scores) == (whole.net.plan, whole.cuts.scores)
    assert identical(again.module, whole.module)


def test_until_the_final_width_the_newest_weights_are_kept_and_then_the_best(
    workspace: Workspace, analysed: PrunedModel, tmp_path: Path
) -> None:
    """The score falls with every step, so that wider nets look better; patience must not run out on them either."""
    task = dataclasses.replace(workspace.task, evaluate=lambda module: {"dice": falling(module)})
    changed = section(evaluate_every=1, early_stop=EarlyStop(patience=2))
    seen = {}

    class Watching(Silent):
        def step(self, done: int, values: Mapping[str, float]) -> None:
            if (tmp_path / "run").exists():
                seen[done - 1] = load_checkpoint(tmp_path / "run")

    run = gradually(workspace, analysed, tmp_path / "run", changed=changed, task=task, progress=Watching())
    assert (run.result.best_step, run.result.step) == (AT[-1], AT[-1] + 2)
    plans = [saved.plan for step, saved in sorted(seen.items()) if step]
    for step in range(1, AT[-1]):
        saved = seen[step]
        assert saved.numbers["best_step"] == saved.step == step and not saved.finished
        assert all(torch.equal(saved.model[n], saved.parts["current"][n]) for n in saved.model)
        assert ("candidates" in saved.parts["cuts"]) == (step > AT[0] and step not in AT)
    assert [a != b for a, b in itertools.pairwise(plans)] == [step in AT[1:] for step in range(2, AT[-1] + 2)]


def test_a_best_from_before_the_final_width_is_caught(
    workspace: Workspace, analysed: PrunedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = dataclasses.replace(workspace.task, evaluate=lambda module: {"dice": falling(module)})
    judge = FitState.judge
    monkeypatch.setattr(FitState, "judge", lambda self, *given: judge(self, *given[:4]))
    with pytest.raises(InvariantError, match="weights of step 3 were kept, the final width came with step 9"):
        gradually(workspace, analysed, task=task)


class Forgetful(GradualCuts):
    """A fault: candidates are chosen anew on resumption, by weights that are half gone."""

    def memory(self) -> tuple[Any, Any]:
        return {}, super().memory()[1]


def test_forgotten_candidates_make_another_run(
    workspace: Workspace, analysed: PrunedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the checkpoint holds is needed: scores by chance show it at once."""

    class Fickle:
        name, looks_at = "fickle", "weights"

        def score(self, net: Any, images: Any) -> Any:
            weights = net.graph.graph.initializers["head.weight"].const_value.numpy()
            return np.random.default_rng(zlib.crc32(weights.tobytes())).random(len(net.channels.unit_labels))

    fickle = Scoring(criterion=Fickle(), images=np.empty(0, np.float32))  # type: ignore[arg-type]
    monkeypatch.setitem(globals(), "L1_ALONE", fickle)
    whole = gradually(workspace, analysed).net.plan
    plans = {}
    for kind in (GradualCuts, Forgetful):
        monkeypatch.setitem(globals(), "GradualCuts", kind)
        with pytest.raises(Interrupted):
            gradually(workspace, analysed, tmp_path / kind.__name__, progress=StopAt(4))
        plans[kind.__name__] = gradually(workspace, analysed, tmp_path / kind.__name__).net.plan
    assert plans["GradualCuts"] == whole != plans["Forgetful"]


STEP = {"steps": 4, "batch_size": 2, "evaluate_every": 2, "warmup_steps": 0}
EVERYTHING = [
    {"name": "redundancy", "tau": 0.1},
    {"name": "gradient_count", "on": "feature"},
    {"name": "group_lasso"},
    {"name": "l0", "decoupled": True},
]


def gradual(model: Mapping[str, Any] | None = None, regularizers: Any = EVERYTHING, **prune: object) -> Recipe:
    return parse_recipe(
        {
            "name": "tiny",
            "model": model or {"name": "unet", "args": {"width": 8, "depth": 1}},
            "data": {"name": "vessels", "train": 4, "validation": 0.25, "test": 1, "size": [48, 48]},
            "augment": {"crop": [32, 32]},
            "train": STEP,
            "sparsify": {"fit": {**STEP, "steps": 10}, "regularizers": regularizers},
            "prune": {
                "criterion": {"name": "l1"},
                "budget": {"name": "ratio", "ratio": 0.5},
                "width_multiple": 2,
                "min_width": 2,
                "schedule": {"name": "gradual", "cuts": 2},
                "recovery": {"methods": ["twins", "least_squares"], "images": 8},
                **prune,
            },
            "finetune": {"fit": STEP},
        }
    )


def opened(directory: Path, wanted: Recipe) -> Workspace:
    return open_workspace(wanted, directory, Silent())


@pytest.mark.slow
def test_a_whole_run_and_its_resumption(tmp_path: Path) -> None:
    progress = Silent()
    workspace = opened(tmp_path / "whole", gradual())
    whole = train_and_prune(workspace, progress)
    cuts = [f"cut-{k}, {when}" for k in (1, 2) for when in ("before", "just cut", "mended")]
    assert list(whole.scores) == ["dense", *cuts, "sparse", "final"]
    assert any(note.startswith("prune.recovery asks for 8 calibration images") for note in progress.notes)
    assert whole.pruned.cut
    final = load_checkpoint(workspace.stage("final"))
    assert final.plan == whole.pruned.plan == load_checkpoint(workspace.stage("sparse")).plan

    class StopIn(Silent):
        def __init__(self, wanted: str, at: int) -> None:
            super().__init__()
            self.wanted, self.at, self.now = wanted, at, ""

        def stage(self, name: str, total: int | None = None) -> None:
            self.now = name

        def step(self, done: int, values: Mapping[str, float]) -> None:
            if (self.now, done) == (self.wanted, self.at):
                raise Interrupted

    for stage, at in (("sparse", 3), ("sparse", 5), ("sparse", 9), ("final", 3)):
        with pytest.raises(Interrupted):
            train_and_prune(opened(tmp_path / "stopped", gradual()), StopIn(stage, at))
    again = Silent()
    resumed = train_and_prune(opened(tmp_path / "stopped", gradual()), again)
    for stage in ("dense", "sparse", "final"):
        assert content(tmp_path / "stopped/stages" / stage) == content(tmp_path / "whole/stages" / stage), stage
    assert list(resumed.scores.items()) == list(whole.scores.items())
    assert {n for n in again.notes if "not kept" in n} == {n for n in progress.notes if "not kept" in n}

    bundle = read_bundle(export_net(workspace, whole.pruned, "compact", progress))
    workspace.save_recipe()
    second = export_run(tmp_path / "whole", tmp_path / "again.bundle", Silent())
    assert read_bundle(second).model == bundle.model


@pytest.mark.slow
def test_a_net_that_trains_masked_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(nets.__file__, tmp_path / "gradual_nets.py")
    monkeypatch.syspath_prepend(tmp_path)
    workspace = opened(tmp_path / "run", gradual({"name": "gradual_nets:HardCoded"}, recovery=None))
    progress = Silent()
    trained = train_and_prune(workspace, progress)
    assert any("final trains masked" in note for note in progress.notes)
    assert [name for name in trained.scores if "mended" in name] == []
    assert read_bundle(export_net(workspace, trained.pruned, "compact", progress)).manifest.certificate.passed


def test_a_net_without_channels_to_prune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(nets.__file__, tmp_path / "fixed_gradual_nets.py")
    monkeypatch.syspath_prepend(tmp_path)
    progress = Silent()
    wanted = gradual({"name": "fixed_gradual_nets:Fixed"}, [])
    trained = train_and_prune(opened(tmp_path / "run", wanted), progress)
    assert list(trained.scores) == ["dense"] and any("nothing to prune" in note for note in progress.notes)


def test_a_budget_out_of_reach_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    wanted = gradual(budget={"name": "macs", "keep": 0.01}, min_width=8)
    with pytest.raises(BudgetError, match="cannot be reached"):
        train_and_prune(opened(tmp_path / "run", wanted), Silent())
    assert not (tmp_path / "run" / "stages").exists()


def test_the_sparse_stage_depends_on_what_is_pruned_in_it(tmp_path: Path) -> None:
    one, other = opened(tmp_path, gradual()), opened(tmp_path, gradual(width_multiple=4))
    frame = opened(tmp_path, gradual().model_copy(update={"export": ExportSection(size=(64, 32))}))
    assert [one.key(s) == frame.key(s) for s in ("dense", "sparse", "final")] == [True, False, False], "MACs on a frame"
    rounds = [opened(tmp_path, gradual(schedule={"rounds": 2}, width_multiple=m)) for m in (2, 4)]
    assert [one.key(s) == other.key(s) for s in ("dense", "sparse", "final")] == [True, False, False]
    assert [rounds[0].key(s) == rounds[1].key(s) for s in ("dense", "sparse", "final")] == [True, True, False]


def test_the_loop_without_a_cutter_is_as_it_was(workspace: Workspace, tmp_path: Path) -> None:
    fit(workspace.fresh_module(), workspace.task, section(), name="s", seed=0, key="k", directory=tmp_path / "run")
    saved = load_checkpoint(tmp_path / "run")
    assert set(saved.parts) == {"model"} and saved.plan is None and not any("cut" in n for n in saved.numbers)
    assert recipe().prune.schedule.name == "iterative"
