"""Regularizers in training runs: when they act, by which way, and that every one can be asked for in a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.errors import ConfigError, TrainingError
from edgeslim.progress import Silent
from edgeslim.trainer.fit import fit
from edgeslim.trainer.recipe import SparsifySection
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.regularizers import (
    L0,
    L1,
    REGULARIZERS,
    BnScale,
    GradientCount,
    Scheduled,
    View,
    check_penalties,
    penalties,
    schedule,
    view_of,
)
from edgeslim.trainer.regularizers.feature_maps import caught_maps
from edgeslim.trainer.regularizers.view import Seen
from edgeslim.trainer.stages import train_and_prune
from edgeslim.trainer.task import Step
from edgeslim.trainer.workspace import Workspace, open_workspace

from .runs import STEPS, identical, last_is_best, recipe, section

pytestmark = pytest.mark.usefixtures("one_thread")


class Watching:
    """A penalty of nothing that notes how far it was told the stage has come."""

    name, looks_at = "watching", "kernels"

    def __init__(self) -> None:
        self.shares: list[float] = []

    def penalty(self, view: View) -> Tensor:
        self.shares.append(view.share)
        return torch.ones(())


class Wild:
    """A penalty that is not finite."""

    looks_at: Seen = "kernels"

    def __init__(self, name: str) -> None:
        self.name = name

    def penalty(self, view: View) -> Tensor:
        return torch.tensor(float("inf"))


# --- when ------------------------------------------------------------------------------------------------------


def test_strength_waits_rises_and_stays() -> None:
    late = Scheduled(rule=L1(), warmup_steps=2, ramp_steps=4)
    assert [late.strength(step) for step in range(8)] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert [Scheduled(rule=L1(), warmup_steps=1).strength(step) for step in range(3)] == [0, 1, 1]
    assert Scheduled(rule=L1()).strength(0) == 1


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 30))
def test_strength_and_share_never_fall(warmup: int, ramp: int, steps: int) -> None:
    one = Scheduled(rule=L1(), warmup_steps=warmup, ramp_steps=ramp)
    for values in ([one.strength(s) for s in range(steps)], [one.share(s, steps) for s in range(steps)]):
        assert values == sorted(values) and values[0] >= 0.0 and values[-1] <= 1.0
    assert all(one.share(step, steps) == 0.0 for step in range(min(warmup + 1, steps)))
    if steps > warmup + 1:
        assert one.share(steps - 1, steps) == 1.0


def test_a_run_tells_penalties_how_far_it_is(workspace: Workspace) -> None:
    rule, module = Watching(), workspace.fresh_module()
    scheduled = [Scheduled(rule=rule, warmup_steps=3, ramp_steps=2)]  # type: ignore[arg-type]
    heard: list[float] = []

    class Listening(Silent):
        def step(self, done: int, values: object) -> None:
            assert isinstance(values, dict)
            heard.append(values["watching"])

    with penalties(module, scheduled, STEPS) as ours:
        fit(module, workspace.task, section(), name="s", seed=0, terms=ours.terms, progress=Listening())
    assert rule.shares == pytest.approx([(step - 3) / (STEPS - 4) for step in range(3, STEPS)])
    assert [heard[0], *sorted(set(heard))] == [0.0, 0.0, 0.5, 1.0]


@pytest.mark.parametrize("options", [{"warmup_steps": -1}, {"ramp_steps": 1.5}, {"warmup_steps": True}])
def test_steps_that_are_none(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"l1: .*_steps is .*; it must be a whole number from 0"):
        Scheduled(rule=L1(), **options)


def test_a_regularizer_named_twice_is_logged_twice_and_the_wild_one_is_blamed(workspace: Workspace) -> None:
    module, twice = workspace.fresh_module(), [Scheduled(rule=L1(weight=w)) for w in (1e-5, 2e-5)]
    with penalties(module, twice, STEPS) as ours:
        assert list(ours.terms) == ["l1", "l1#2"]
        result = fit(module, workspace.task, section(), name="s", seed=0, terms=ours.terms)
    assert result.terms["l1#2"] == pytest.approx(2 * result.terms["l1"])
    wild = [*twice, Scheduled(rule=Wild("l0"))]
    with (
        penalties(module, wild, STEPS) as ours,
        pytest.raises(TrainingError, match="sparse: l0 is inf at step 0; no checkpoint"),
    ):
        fit(module, workspace.task, section(), name="sparse", seed=0, terms=ours.terms)


# --- decoupled -------------------------------------------------------------------------------------------------


def test_decoupled_l0_moves_weights_by_its_own_gradient() -> None:
    net = nn.Linear(4, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, -0.5, 1e-4, 0.0]]))
    before = net.weight.detach().clone()
    rule, images = L0(alpha=0.1, beta=5.0, l2=0.0), torch.zeros(1, 4)
    with penalties(net, [Scheduled(rule=rule, decoupled=True)], 1) as ours:
        step = Step(
            number=0, rate=0.01, module=net, images=images, targets=images, logits=images, autocast=torch.no_grad
        )
        value = ours.terms["l0"](step)
        assert not value.requires_grad and float(value) > 0
        for call in ours.after_step:
            call(step)
    wanted = before - 0.01 * 0.1 * 5.0 * before.sign() * torch.exp(-5.0 * before.abs())
    wanted[0, 2] = 0.0  # would have changed its sign
    torch.testing.assert_close(net.weight.detach(), wanted)
    assert net.weight.grad is None


def test_coupled_and_decoupled_are_two_methods(workspace: Workspace) -> None:
    task, nets = last_is_best(workspace.task), []
    for decoupled in (False, True):
        module, changed = workspace.fresh_module(), section(lr=1e-2)
        with penalties(module, [Scheduled(rule=L0(alpha=1e-1), decoupled=decoupled)], changed.steps) as ours:
            assert len(ours.after_step) == decoupled
            fit(module, task, changed, name="s", seed=0, terms=ours.terms, after_step=ours.after_step)
        nets.append(module)
    zeros = [sum(int((k.weight == 0).sum()) for k in view_of(net).kernels) for net in nets]
    assert zeros[0] == 0 and zeros[1] > 100
    assert not identical(*nets)


def test_feature_maps_are_gone_after_the_step() -> None:
    with pytest.raises(ConfigError, match="gradient_count: decoupled, it has no feature maps to look at"):
        Scheduled(rule=GradientCount(on="feature"), decoupled=True)


# --- what is looked at -----------------------------------------------------------------------------------------


def test_feature_maps_of_the_forward_in_training_and_no_other(workspace: Workspace) -> None:
    module, images = workspace.fresh_module().train(), torch.randn(2, 3, 32, 32)
    with caught_maps(module) as maps:
        module(images)
        first = len(maps)
        with torch.no_grad():
            module(images)
        assert len(maps) == first > 2 and all(m.requires_grad and m.shape[0] == 2 for m in maps)
        assert all(float(m.detach().min()) == 0.0 for m in maps)  # behind the ReLU
        module(images[:1])
        assert len(maps) == first and maps[0].shape[0] == 1
    assert maps == []
    module(images)
    assert maps == []


def test_the_count_of_feature_maps_smooths_them(workspace: Workspace) -> None:
    task, values = last_is_best(workspace.task), []
    for weight in (0.0, 10.0):
        module, changed = workspace.fresh_module(), section(lr=1e-2, steps=20)
        rule = GradientCount(weight=weight, on="feature", beta=2.0, beta_end=2.0)
        with penalties(module, [Scheduled(rule=rule)], changed.steps) as ours:
            fit(module, task, changed, name="s", seed=0, terms=ours.terms)
        with caught_maps(module) as maps:
            module(workspace.task.draws[0][0][None].float() / 255)
            count = GradientCount(weight=1.0, on="feature", beta=2.0, beta_end=2.0)
            values.append(float(count.penalty(View(maps=maps)).detach()))
    assert values[1] < 0.8 * values[0]


def test_a_net_without_what_a_regularizer_looks_at() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.layer(x))

    net = Functional()
    check_penalties(net, [Scheduled(rule=L0())])
    for rule, said in (
        (BnScale(), "bn_scale looks at scales of batch norms, and Functional has none"),
        (GradientCount(on="feature"), "gradient_count looks at feature maps behind modules that are non-linearities"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            check_penalties(net, [Scheduled(rule=rule)])
        assert "sparsify.regularizers" in caught.value.hint
    with pytest.raises(ConfigError, match="l0 looks at weights of convolutions and linear layers"):
        check_penalties(nn.Sequential(nn.ReLU()), [Scheduled(rule=L0())])


# --- recipes ---------------------------------------------------------------------------------------------------

EVERY: list[dict[str, object]] = [
    {"name": "l0"},
    {"name": "l0", "decoupled": True, "alpha": 1e-2, "warmup_steps": 1},
    {"name": "l1", "weight": 1e-6, "ramp_steps": 2},
    {"name": "l2", "parameters": "all"},
    {"name": "group_lasso"},
    {"name": "bn_scale"},
    {"name": "gradient_count"},
    {"name": "gradient_count", "on": "feature", "form": "splitting", "beta": 1, "beta_end": 10},
    {"name": "redundancy"},
    {"name": "redundancy", "sign": "repel", "rank": "gradient_count", "pressure": 0.5, "tau": 0.3},
]


def sparsified(*regularizers: dict[str, object]) -> SparsifySection:
    data = recipe().model_dump(mode="json")
    fit_of = {"steps": 2, "batch_size": 2, "evaluate_every": 1, "warmup_steps": 0}
    data["sparsify"] = {"fit": fit_of, "regularizers": list(regularizers)}
    found = parse_recipe(data).sparsify
    assert found is not None
    return found


def test_every_regularizer_has_its_recipe() -> None:
    assert {str(one["name"]) for one in EVERY} == set(REGULARIZERS)
    for name, make in REGULARIZERS.items():
        (built,) = sparsified({"name": name}).regularizers
        assert schedule(built) == Scheduled(rule=make())
        assert make().name == name


@pytest.mark.parametrize("one", EVERY, ids=lambda one: str(one["name"]))
def test_two_steps_under_every_regularizer(workspace: Workspace, one: dict[str, object], tmp_path: Path) -> None:
    sparsify = sparsified(one)
    module, task = workspace.fresh_module(), last_is_best(workspace.task)
    scheduled = [schedule(s) for s in sparsify.regularizers]
    with penalties(module, scheduled, sparsify.fit.steps) as ours:
        given = {"terms": ours.terms, "after_step": ours.after_step, "directory": tmp_path / "run"}
        result = fit(module, task, sparsify.fit, name="sparse", seed=0, **given)  # type: ignore[arg-type]
    assert result.step == 2 and list(result.terms) == [one["name"]]
    assert result.terms[str(one["name"])] >= 0.0
    assert not any(part._forward_hooks for part in module.modules())
    untouched = workspace.fresh_module()
    fit(untouched, task, sparsify.fit, name="sparse", seed=0)
    assert identical(module, untouched) is (result.terms[str(one["name"])] == 0.0)


def test_a_whole_run_under_several_of_them(tmp_path: Path) -> None:
    data = recipe().model_dump(mode="json")
    short = {"steps": 2, "batch_size": 2, "evaluate_every": 1}
    data |= {"train": short, "finetune": {"fit": short}}
    names = [{"name": name} for name in ("l0", "redundancy", "bn_scale")]
    features = {"name": "gradient_count", "on": "feature", "warmup_steps": 1}
    data["sparsify"] = {"fit": short, "regularizers": [*names, features]}
    data["prune"] = {"budget": {"name": "ratio", "ratio": 0.5}, "width_multiple": 2, "min_width": 2}
    heard: dict[str, set[str]] = {}

    class Listening(Silent):
        def stage(self, name: str, total: int | None = None) -> None:
            self.now = heard.setdefault(name, set())

        def step(self, done: int, values: object) -> None:
            assert isinstance(values, dict)
            self.now.update(values)

    progress = Listening()
    trained = train_and_prune(open_workspace(parse_recipe(data), tmp_path, progress), progress)
    assert heard["sparse"] > {"loss", "l0", "redundancy", "bn_scale", "gradient_count"}
    assert "teacher" in heard["final"] and "l0" not in heard["final"]
    assert trained.pruned.cut and {"sparse", "final"} <= trained.scores.keys()


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ({"name": "gradient_count", "on": "loss"}, "regularizers.0.on: counting the loss's gradients is an importance"),
        ({"name": "gradient_count", "beta": 9, "beta_end": 1}, "regularizers.0: beta_end 1.0 is below beta 9.0"),
        ({"name": "redundancy", "tau": 1}, "regularizers.0.tau: input should be less than 1"),
        ({"name": "l1", "weight": -1}, "regularizers.0.weight: input should be greater than or equal to 0"),
        ({"name": "l1", "decoupled": True}, "regularizers.0.decoupled: unknown key"),
        ({"name": "l9"}, "regularizers.0.name: 'l9' is not one of 'l0', 'l1', 'l2', 'group_lasso', 'bn_scale'"),
    ],
)
def test_mistakes_in_a_recipe(one: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sparsified(one)
    assert said in caught.value.message


def test_a_whole_run_refuses_before_it_trains(tmp_path: Path) -> None:
    data = recipe().model_dump(mode="json")
    data["model"] = {"name": "tests.torch.nets:Bare", "args": {}}
    data["sparsify"] = {"fit": {"steps": 1}, "regularizers": [{"name": "bn_scale"}]}
    with pytest.raises(ConfigError, match="bn_scale looks at scales of batch norms, and Bare has none"):
        train_and_prune(open_workspace(parse_recipe(data), tmp_path, Silent()), Silent())
    assert not (tmp_path / "stages").exists()
