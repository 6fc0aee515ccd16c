"""Weight pruning as part of a run: its place, its keys, its pattern to the last stage, and its bundle."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgeslim.errors import ConfigError
from edgeslim.progress import Silent
from edgeslim.runtime import read_bundle
from edgeslim.trainer.bundles import export_net
from edgeslim.trainer.checkpoint import load_checkpoint
from edgeslim.trainer.recipe import Recipe
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.reexport import export_run
from edgeslim.trainer.stages import Trained, train_and_prune
from edgeslim.trainer.workspace import Workspace, open_workspace

from . import nets
from .runs import Interrupted, content

pytestmark = pytest.mark.usefixtures("one_thread")

STEP = {"steps": 4, "batch_size": 2, "evaluate_every": 2, "warmup_steps": 0}
METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {"method": "magnitude", "fraction": 0.85, "finetune": STEP},
    "lamp": {"method": "lamp", "fraction": 0.85, "finetune": STEP},
    "threshold": {"method": "threshold", "delta": 0.02, "finetune": {**STEP, "optimizer": "sgd"}},
    "2:4": {"method": "2:4", "finetune": STEP},
}

IN_ROUNDS = {"rounds": 3, "law": "polynomial", "power": 2.0, "between": STEP}
ROUNDS = {f"{name} in rounds": {**METHODS[name], "schedule": IN_ROUNDS} for name in ("magnitude", "threshold")}


def recipe(weights: Mapping[str, Any] | None, model: Mapping[str, Any] | None = None, **more: object) -> Recipe:
    data: dict[str, Any] = {
        "name": "tiny",
        "model": model or {"name": "unet", "args": {"width": 8, "depth": 1}},
        "data": {"name": "vessels", "train": 4, "validation": 0.25, "test": 1, "size": [48, 48]},
        "augment": {"crop": [32, 32]},
        "train": STEP,
        "sparsify": {"fit": STEP},
        "prune": {
            "criterion": {"name": "l1"},
            "budget": {"name": "ratio", "ratio": 0.5},
            "width_multiple": 4,
            "min_width": 4,
            "schedule": {"rounds": 2, "between": STEP},
        },
        "finetune": {"fit": STEP},
        **more,
    }
    return parse_recipe(data if weights is None else {**data, "weights": dict(weights)})


def opened(directory: Path, wanted: Recipe) -> Workspace:
    return open_workspace(wanted, directory, Silent())


def zeros(path: Path) -> dict[str, torch.Tensor]:
    """Kernel -> where it is pruned, as the checkpoint says; and that it is zero there."""
    saved = load_checkpoint(path)
    for name, keep in saved.parts["pattern"].items():
        assert not bool(saved.model[name][~keep].any()), (path, name)
    return {name: ~keep for name, keep in saved.parts["pattern"].items()}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_pruned_weights_stay_zero_to_the_bundle(tmp_path: Path, method: str) -> None:
    workspace, progress = opened(tmp_path, recipe(METHODS[method])), Silent()
    trained = train_and_prune(workspace, progress)
    assert list(trained.scores)[:4] == ["dense", "sparse", "weights, just pruned", "weights"]
    assert "final" in trained.scores
    for stage in ("weights", "round-1", "final"):
        assert sum(int(z.sum()) for z in zeros(workspace.stage(stage)).values()) > 0
    assert any("weights pruned (" in note for note in progress.notes)
    path = export_net(workspace, trained.pruned, "compact", progress)
    bundle = read_bundle(path)
    sizes = bundle.manifest.sizes
    assert sizes.dense_weights and sizes.weights and sizes.nonzero_weights is not None
    assert sizes.nonzero_weights < sizes.weights < sizes.dense_weights
    assert sizes.compression == sizes.dense_weights / sizes.nonzero_weights
    kernels = [
        onnx.numpy_helper.to_array(t)
        for t in onnx.load_model_from_string(bundle.model).graph.initializer
        if len(t.dims) == 4
    ]
    if method != "threshold":  # so little of the net is left there that simplification computes some layers away
        assert sum(k.size for k in kernels) == sizes.weights
        assert sum(int(np.count_nonzero(k)) for k in kernels) == sizes.nonzero_weights
    assert not any(bool((np.signbit(k) & (k == 0)).any()) for k in kernels)
    if method == "2:4":
        checked = 0
        final = load_checkpoint(workspace.stage("final"))
        for name in final.parts["pattern"]:
            weight = final.model[name]
            if name != "up.0.weight" and weight.shape[1] % 4 == 0:
                fours = weight.movedim(1, -1).reshape(-1, 4)
                assert bool(((fours != 0).sum(1) <= 2).all()), name
                checked += 1
        assert checked >= 4
        shipped = onnx.load_model_from_string(bundle.model).graph
        held = {t.name: onnx.numpy_helper.to_array(t) for t in shipped.initializer}
        for node in shipped.node:
            kernel = held[node.input[1]] if node.op_type == "Conv" else np.empty((0, 0))
            if kernel.size and kernel.shape[1] % 4 == 0:
                assert np.count_nonzero(np.moveaxis(kernel, 1, -1).reshape(-1, 4), axis=1).max() <= 2
    else:
        assert bundle.manifest.sparse is not None
        assert bundle.manifest.files["model.sparse"].bytes < len(bundle.model)
    again = export_run_of(workspace, tmp_path)
    assert read_bundle(again).model == bundle.model


@pytest.mark.slow
def test_rounds_prune_more_and_more_and_reach_the_fraction(tmp_path: Path) -> None:
    workspace, progress = opened(tmp_path, recipe(ROUNDS["magnitude in rounds"])), Silent()
    trained = train_and_prune(workspace, progress)
    rounds = ["weights-1", "weights-2", "weights"]
    assert list(trained.scores)[2:8] == [name for r in rounds for name in (f"{r}, just pruned", r)]
    gone = [zeros(workspace.stage(r)) for r in rounds]
    weights = sum(z.numel() for z in gone[0].values())
    shares = [sum(int(z.sum()) for z in g.values()) / weights for g in gone]
    # 1 - (1 - k/3)^2 of the way: 5/9, 8/9, all of it
    assert shares == pytest.approx([1 - 0.15 ** (5 / 9), 1 - 0.15 ** (8 / 9), 0.85], abs=1 / weights)
    for before, after in itertools.pairwise(gone):
        assert all(bool((after[name] | ~before[name]).all()) for name in before)


@pytest.mark.slow
def test_every_round_searches_a_threshold_for_the_net_it_finds(tmp_path: Path) -> None:
    workspace, progress = opened(tmp_path, recipe(ROUNDS["threshold in rounds"])), Silent()
    train_and_prune(workspace, progress)
    said = [note.partition(":")[0] for note in progress.notes if "threshold" in note and "trials" in note]
    assert said == ["weights-1", "weights-2", "weights"]


@pytest.mark.slow
def test_without_a_section_for_channels_only_dead_ones_leave(tmp_path: Path) -> None:
    weights = {"method": "magnitude", "fraction": 0.97, "finetune": STEP}
    workspace, progress = opened(tmp_path / "run", recipe(weights, prune=None)), Silent()
    trained = train_and_prune(workspace, progress)
    assert list(trained.scores) == ["dense", "sparse", "weights, just pruned", "weights", "final"]
    assert any(note.startswith("dead units cut") for note in progress.notes)
    bundle = read_bundle(export_net(workspace, trained.pruned, "compact", progress))
    sizes = bundle.manifest.sizes
    assert sizes.dense_weights and sizes.weights and sizes.nonzero_weights
    assert sizes.weights < sizes.dense_weights and sizes.nonzero_weights <= round(0.03 * sizes.dense_weights) + 1
    assert read_bundle(export_run_of(workspace, tmp_path / "run")).model == bundle.model


def export_run_of(workspace: Workspace, run: Path) -> Path:
    workspace.save_recipe()
    return export_run(run, run.parent / f"{run.name}-again.bundle", Silent())


class StopIn(Silent):
    """Interrupts in step `at` of one stage."""

    def __init__(self, stage: str, at: int) -> None:
        super().__init__()
        self.wanted, self.at, self.now = stage, at, ""

    def stage(self, name: str, total: int | None = None) -> None:
        self.now = name

    def step(self, done: int, values: Mapping[str, float]) -> None:
        if (self.now, done) == (self.wanted, self.at):
            raise Interrupted


@pytest.mark.slow
@pytest.mark.parametrize("method", [*METHODS, *ROUNDS])
def test_a_run_is_resumed_bit_for_bit(tmp_path: Path, method: str) -> None:
    wanted = recipe({**METHODS, **ROUNDS}[method])
    first = ("weights-1",) if method in ROUNDS else ()
    whole = train_and_prune(opened(tmp_path / "whole", wanted), Silent())
    for stage in (*first, "weights", "round-1", "final"):
        with pytest.raises(Interrupted):
            train_and_prune(opened(tmp_path / "stopped", wanted), StopIn(stage, 3))
    resumed = train_and_prune(opened(tmp_path / "stopped", wanted), Silent())
    for stage in ("sparse", *first, "weights", "round-1", "final"):
        assert content(tmp_path / "stopped/stages" / stage) == content(tmp_path / "whole/stages" / stage), stage
    assert resumed.pruned.plan == whole.pruned.plan
    assert resumed.scores == whole.scores


@pytest.mark.slow
@pytest.mark.parametrize("method", ["magnitude", "2:4"])
def test_a_net_that_trains_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    shutil.copy(nets.__file__, tmp_path / "masked_nets.py")
    monkeypatch.syspath_prepend(tmp_path)
    workspace, progress = opened(tmp_path / "run", recipe(METHODS[method], {"name": "masked_nets:HardCoded"})), Silent()
    trained = train_and_prune(workspace, progress)
    assert any("trains masked" in note for note in progress.notes)
    assert zeros(workspace.stage("final"))
    bundle = read_bundle(export_net(workspace, trained.pruned, "compact", progress))
    sizes = bundle.manifest.sizes
    assert sizes.nonzero_weights is not None and sizes.weights and sizes.nonzero_weights < 0.7 * sizes.weights


@pytest.mark.slow
def test_a_net_whose_channels_cannot_be_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(nets.__file__, tmp_path / "fixed_nets.py")
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    workspace, progress = opened(run, recipe(METHODS["magnitude"], {"name": "fixed_nets:Fixed"})), Silent()
    trained: Trained = train_and_prune(workspace, progress)
    assert any(note.startswith("no channel can be pruned") for note in progress.notes)
    assert list(trained.scores) == ["dense", "sparse", "weights, just pruned", "weights"]
    bundle = read_bundle(export_net(workspace, trained.pruned, "compact", progress))
    assert bundle.manifest.sizes.nonzero_weights == 54 - round(0.85 * 54)
    assert read_bundle(export_run_of(workspace, run)).model == bundle.model


def test_a_recipe_without_the_section_has_the_keys_it_had(tmp_path: Path) -> None:
    plain = opened(tmp_path, recipe(None))
    pruned = opened(tmp_path, recipe(METHODS["magnitude"]))
    other = opened(tmp_path, recipe({**METHODS["magnitude"], "fraction": 0.5}))
    stages = ("dense", "sparse", "weights", "round-1", "final")
    assert [plain.key(s) == pruned.key(s) for s in stages] == [True, True, False, False, False]
    assert [other.key(s) == pruned.key(s) for s in stages] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"finetune": STEP}, "weights: method magnitude needs fraction"),
        ({"fraction": 0.5, "delta": 0.1, "finetune": STEP}, "weights: method magnitude has no delta"),
        ({"method": "threshold", "finetune": STEP}, "weights: method threshold needs delta"),
        ({"method": "lamp", "finetune": STEP}, "weights: method lamp needs fraction"),
        ({"method": "lamp", "fraction": 0.5, "per_layer": True, "finetune": STEP}, "lamp has no per_layer"),
        ({"method": "threshold", "delta": 0.1, "per_layer": True, "finetune": STEP}, "threshold has no per_layer"),
        ({"method": "2:4", "fraction": 0.5, "finetune": STEP}, "weights: method 2:4 has no fraction"),
        ({"fraction": 1.0, "finetune": STEP}, r"weights\.fraction: .*less than 1"),
        ({"method": "threshold", "delta": -0.1, "finetune": STEP}, r"weights\.delta: "),
        ({"fraction": 0.5}, r"weights\.finetune: missing"),
        ({"method": "random", "finetune": STEP}, r"weights\.method: .*'magnitude', 'lamp', 'threshold' or '2:4'"),
        ({"method": "2:4", "schedule": IN_ROUNDS, "finetune": STEP}, "weights: method 2:4 has no schedule"),
        ({"fraction": 0.5, "schedule": {"rounds": 0}, "finetune": STEP}, r"weights\.schedule\.rounds: "),
    ],
)
def test_a_section_that_says_nonsense(weights: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        recipe(weights)
