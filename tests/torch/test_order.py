"""The order of a recipe's sections: what is done when, what trains narrow, and what comes out."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeslim.errors import CheckpointError, ConfigError
from edgeslim.progress import Silent
from edgeslim.runtime import read_bundle
from edgeslim.trainer.bundles import export_net
from edgeslim.trainer.checkpoint import load_checkpoint
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe import Recipe
from edgeslim.trainer.sparsity import two_of_four_pattern
from edgeslim.trainer.sparsity.held import HeldPattern
from edgeslim.trainer.stages import train_and_prune
from edgeslim.trainer.stages.weights import cut_dead_filters
from edgeslim.trainer.workspace import Workspace

from . import nets
from .runs import Interrupted, content
from .test_sparsity_stages import METHODS, STEP, StopIn, export_run_of, opened, zeros
from .test_sparsity_stages import recipe as made

pytestmark = pytest.mark.usefixtures("one_thread")

SECTIONS = ("sparsify", "weights", "prune")
STAGES = {"sparsify": ["sparse"], "weights": ["weights"], "prune": ["round-1"]}
CHANNELS_FIRST = ["prune", "sparsify", "weights"]


def recipe(order: list[str], method: str = "magnitude", **more: Any) -> Recipe:
    return made(METHODS[method], order=order, **more)


def size(stage: Path) -> int:
    """How many numbers a stage has trained."""
    return sum(tensor.numel() for tensor in load_checkpoint(stage).model.values())


@pytest.mark.slow
@pytest.mark.parametrize("order", [list(order) for order in itertools.permutations(SECTIONS)], ids="-".join)
def test_sections_are_done_in_the_order_asked_for(tmp_path: Path, order: list[str]) -> None:
    workspace, progress = opened(tmp_path / "run", recipe(order)), Silent()
    trained = train_and_prune(workspace, progress)
    stages = [stage for section in order for stage in STAGES[section]]
    assert [name for name in trained.scores if name in stages] == stages
    dense, narrow = size(workspace.stage("dense")), size(workspace.stage("final"))
    assert narrow < dense
    for section in order[: order.index("prune")]:
        if section == "sparsify" and "weights" not in order[: order.index("sparsify")]:
            assert size(workspace.stage("sparse")) == dense
    for section in order[order.index("prune") + 1 :]:
        assert size(workspace.stage(STAGES[section][0])) < dense
    assert zeros(workspace.stage("final"))
    bundle = read_bundle(export_net(workspace, trained.pruned, "compact", progress))
    sizes = bundle.manifest.sizes
    assert sizes.weights and sizes.nonzero_weights is not None
    # what prune takes along after the weights have gone can be any of them
    assert sizes.nonzero_weights < 0.5 * sizes.weights
    assert read_bundle(export_run_of(workspace, tmp_path / "run")).model == bundle.model


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_channels_first_counts_the_weights_that_are_left(tmp_path: Path, method: str) -> None:
    workspace, progress = opened(tmp_path / "run", recipe(CHANNELS_FIRST, method)), Silent()
    trained = train_and_prune(workspace, progress)
    gone = zeros(workspace.stage("weights"))
    left = load_checkpoint(workspace.stage("weights")).model
    assert all(flags.shape == left[name].shape for name, flags in gone.items())
    if method == "magnitude":
        weights = sum(flags.numel() for flags in gone.values())
        assert sum(int(flags.sum()) for flags in gone.values()) == round(0.85 * weights)
        assert weights < sum(t.numel() for t in workspace.module.state_dict().values() if t.ndim == 4)
    assert any("weights pruned (" in note for note in progress.notes)
    bundle = read_bundle(export_net(workspace, trained.pruned, "compact", progress))
    assert bundle.manifest.certificate is not None and bundle.manifest.certificate.passed


@pytest.mark.slow
def test_what_was_cut_before_is_mended_and_taught(tmp_path: Path) -> None:
    workspace, progress = opened(tmp_path / "run", recipe(CHANNELS_FIRST)), Terms()
    scores = train_and_prune(workspace, progress).scores
    assert "pruned, mended" in scores
    assert {stage for stage, names in progress.terms.items() if "teacher" in names} == {
        "round-1", "sparse", "weights", "final",
    }  # fmt: skip
    assert "l0" in progress.terms["sparse"]


@pytest.mark.slow
def test_every_method_says_what_it_bought_in_the_score(tmp_path: Path) -> None:
    prune = {
        "criterion": {"name": "l1"},
        "budget": {"name": "ratio", "ratio": 0.5},
        "width_multiple": 4,
        "min_width": 4,
        "schedule": {"name": "one_shot"},
        "recovery": {"methods": ["batch_norm", "least_squares"], "images": 8},
    }
    workspace, progress = opened(tmp_path / "run", made(None, prune=prune)), Silent()
    scores = train_and_prune(workspace, progress).scores
    told = [note for note in progress.notes if note.startswith("pruned: ")]
    assert [note.split()[1] for note in told] == ["batch_norm", "least_squares"]
    figures = [re.search(r"dice from (\S+) to (\S+)$", note) for note in told if "was not kept" not in note]
    found = [(float(m[1]), float(m[2])) for m in figures if m]
    assert found and len(found) == len(figures)
    assert found[0][0] == pytest.approx(scores["pruned, just cut"]["dice"], abs=1e-4)
    assert found[-1][1] == pytest.approx(scores["pruned, mended"]["dice"], abs=1e-4)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(("method", "leaves"), [("magnitude", True), ("2:4", False)])
def test_a_dead_unit_takes_no_layer_its_two_of_four(tmp_path: Path, method: str, leaves: bool) -> None:
    """Of 8 filters one is dead, and 7 inputs do not divide by four."""
    workspace = opened(tmp_path / "run", made(METHODS[method], prune=None))
    module = workspace.fresh_module()
    module.get_parameter("stem.0.weight").data[0] = 0.0
    net = PrunedModel.from_module(module, torch.from_numpy(workspace.calibration(1)))
    held = HeldPattern(method=method, pattern=two_of_four_pattern(net.module))
    cut_dead_filters(workspace, net, held, Silent())
    assert bool(net.cut) == leaves


def test_dead_units_leave_widths_that_both_the_recipe_and_two_of_four_want(tmp_path: Path) -> None:
    """Of 16 filters four are dead; 12 divide by four, but the recipe wants multiples of 8."""
    wide = {"name": "unet", "args": {"width": 16, "depth": 1}}
    prune = {"budget": {"name": "ratio", "ratio": 0.5}, "width_multiple": 8, "min_width": 8}
    workspace = opened(tmp_path / "run", made(METHODS["2:4"], wide, prune=prune))
    module = workspace.fresh_module()
    module.get_parameter("stem.0.weight").data[:4] = 0.0
    net = PrunedModel.from_module(module, torch.from_numpy(workspace.calibration(1)))
    cut_dead_filters(workspace, net, HeldPattern(method="2:4", pattern=two_of_four_pattern(net.module)), Silent())
    assert not net.cut


@pytest.mark.slow
@pytest.mark.parametrize("order", [list(SECTIONS), CHANNELS_FIRST], ids="-".join)
def test_kernels_that_stay_whole_are_told(tmp_path: Path, order: list[str]) -> None:
    """As the first one does, which reads the image's three channels."""
    progress = Silent()
    train_and_prune(opened(tmp_path / "run", recipe(order, "2:4")), progress)
    assert "weights: stem.0.weight stays whole: 3 input channels do not divide by 4" in progress.notes


@pytest.mark.slow
def test_a_net_without_channels_to_cut_is_exported_as_the_last_section_left_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(nets.__file__, tmp_path / "fixed_order_nets.py")
    monkeypatch.syspath_prepend(tmp_path)
    wanted = made(METHODS["magnitude"], {"name": "fixed_order_nets:Fixed"}, order=["weights", "sparsify", "prune"])
    workspace, progress = opened(tmp_path / "run", wanted), Silent()
    trained = train_and_prune(workspace, progress)
    assert list(trained.scores) == ["dense", "weights, just pruned", "weights", "sparse"]
    bundle = read_bundle(export_net(workspace, trained.pruned, "compact", progress))
    assert read_bundle(export_run_of(workspace, tmp_path / "run")).model == bundle.model


@pytest.mark.slow
def test_only_the_last_training_sees_mixtures_and_it_is_resumed(tmp_path: Path) -> None:
    prune = {
        "criterion": {"name": "l1"},
        "budget": {"name": "ratio", "ratio": 0.5},
        "width_multiple": 4,
        "min_width": 4,
        "schedule": {"rounds": 2, "between": STEP},
    }
    wanted = made(None, prune=prune, finetune={"fit": STEP, "distill": {"mixed": True}})
    progress = Losses()
    whole = train_and_prune(opened(tmp_path / "whole", wanted), progress)
    assert progress.losses["final"] == {0.0} and 0.0 not in progress.losses["round-1"]
    with pytest.raises(Interrupted):
        train_and_prune(opened(tmp_path / "stopped", wanted), StopIn("final", 3))
    resumed = train_and_prune(opened(tmp_path / "stopped", wanted), Silent())
    assert resumed.scores == whole.scores
    assert content(tmp_path / "stopped/stages/final") == content(tmp_path / "whole/stages/final")


class Losses(Silent):
    """The task's losses of every stage."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.losses = "", dict[str, set[float]]()

    def stage(self, name: str, total: int | None = None) -> None:
        self.now = name

    def step(self, done: int, values: Mapping[str, float]) -> None:
        if "loss" in values:
            self.losses.setdefault(self.now, set()).add(values["loss"])


class Terms(Silent):
    """Which terms of the loss every stage reports."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.terms = "", dict[str, set[str]]()

    def stage(self, name: str, total: int | None = None) -> None:
        self.now = name

    def step(self, done: int, values: Mapping[str, float]) -> None:
        self.terms.setdefault(self.now, set()).update(values)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["magnitude", "threshold"])
def test_a_run_in_another_order_is_resumed_bit_for_bit(tmp_path: Path, method: str) -> None:
    wanted = recipe(CHANNELS_FIRST, method)
    whole = train_and_prune(opened(tmp_path / "whole", wanted), Silent())
    stages = ("round-1", "sparse", "weights", "final")
    for stage in stages:
        with pytest.raises(Interrupted):
            train_and_prune(opened(tmp_path / "stopped", wanted), StopIn(stage, 3))
    resumed = train_and_prune(opened(tmp_path / "stopped", wanted), Silent())
    for stage in stages:
        assert content(tmp_path / "stopped/stages" / stage) == content(tmp_path / "whole/stages" / stage), stage
    assert resumed.scores == whole.scores


@pytest.mark.slow
def test_a_threshold_that_was_found_among_other_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As scores that are nearly equal may fall otherwise on another machine."""
    monkeypatch.setattr(Workspace, "key", lambda workspace, stage: stage)
    one_shot = {"criterion": {"name": "l1"}, "width_multiple": 2, "min_width": 2, "schedule": {"name": "one_shot"}}
    for ratio in (0.5, 0.25):
        prune = {**one_shot, "budget": {"name": "ratio", "ratio": ratio}}
        workspace = opened(tmp_path / "run", recipe(CHANNELS_FIRST, "threshold", prune=prune, sparsify=None))
        if ratio == 0.5:
            train_and_prune(workspace, Silent())
    with pytest.raises(CheckpointError, match=r"stages/weights: .* does not fit"):
        train_and_prune(workspace, Silent())


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_net_that_trains_masked_has_its_channels_cut_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    shutil.copy(nets.__file__, tmp_path / "masked_first_nets.py")
    monkeypatch.syspath_prepend(tmp_path)
    wanted = made(METHODS[method], {"name": "masked_first_nets:HardCoded"}, order=CHANNELS_FIRST)
    workspace, progress = opened(tmp_path / "run", wanted), Silent()
    trained = train_and_prune(workspace, progress)
    assert any(note.startswith("sparse trains masked") for note in progress.notes)
    for name, axes in trained.pruned.plan.initializers.items():
        weight = load_checkpoint(workspace.stage("final")).model.get(name)
        for axis in axes if weight is not None else ():
            if axis.masked:
                assert not bool(weight.index_select(axis.axis, torch.tensor(axis.cut)).any()), name
    if method == "magnitude":
        note = next(note for note in progress.notes if note.startswith("weights:") and "pruned (" in note)
        assert "85.0%" in note and "HardCoded" not in note
    bundle = read_bundle(export_net(workspace, trained.pruned, "compact", progress))
    sizes = bundle.manifest.sizes
    assert sizes.weights and sizes.nonzero_weights is not None and sizes.nonzero_weights < sizes.weights


def test_a_stage_depends_on_what_was_done_before_it(tmp_path: Path) -> None:
    usual, first = opened(tmp_path, recipe(list(SECTIONS))), opened(tmp_path, recipe(CHANNELS_FIRST))
    other = opened(tmp_path, recipe(CHANNELS_FIRST, finetune={"fit": {**STEP, "lr": 0.5}}))
    plain = opened(tmp_path, made(METHODS["magnitude"]))
    stages = ("dense", "sparse", "weights", "round-1", "final")
    assert all(plain.key(s) == usual.key(s) for s in stages)
    assert [usual.key(s) == first.key(s) for s in stages] == [True, False, False, False, False]
    assert [other.key(s) == first.key(s) for s in stages] == [True, False, False, False, False]


def test_a_stage_behind_pruned_weights_depends_on_what_becomes_of_dead_filters(tmp_path: Path) -> None:
    """The section `prune` says which of them go, and a net that has lost some has the dense one as teacher."""
    order = ["weights", "sparsify", "prune"]
    usual = opened(tmp_path, recipe(order))
    taught = opened(tmp_path, recipe(order, finetune={"fit": STEP, "distill": None}))
    wide = opened(tmp_path, recipe(order, prune={"budget": {"name": "ratio", "ratio": 0.5}, "width_multiple": 2}))
    for other in (taught, wide):
        assert [usual.key(s) == other.key(s) for s in ("dense", "weights", "sparse")] == [True, True, False]


@pytest.mark.parametrize(
    "order", [["prune", "weights"], ["prune", "prune", "weights"], ["prune", "sparsify", "weights", "prune"], []]
)
def test_an_order_names_every_section_once(order: list[str]) -> None:
    with pytest.raises(ConfigError, match="name each of sparsify, weights, prune once"):
        recipe(order)


def test_an_order_of_unknown_sections() -> None:
    with pytest.raises(ConfigError, match=r"order\.0: .*'sparsify', 'weights' or 'prune'"):
        recipe(["train", "sparsify", "weights"])


def test_a_gradual_schedule_has_its_place_already() -> None:
    with pytest.raises(ConfigError, match="gradual cuts while sparsify trains: leave out order"):
        made(
            None,
            order=CHANNELS_FIRST,
            prune={
                "criterion": {"name": "l1"},
                "budget": {"name": "ratio", "ratio": 0.5},
                "schedule": {"name": "gradual"},
            },
        )
