"""What takes part in the steps beside the task: penalties, a teacher, masks that must hold."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgeslim.errors import ConfigError, TrainingError
from edgeslim.progress import Silent
from edgeslim.trainer.checkpoint import load_checkpoint
from edgeslim.trainer.distill import mixed, on_mixtures, teacher_term
from edgeslim.trainer.fit import fit
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe import DistillSection
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.regularizers import L0, Scheduled, penalties, view_of
from edgeslim.trainer.task import AfterStep, Step
from edgeslim.trainer.workspace import Workspace

from .runs import STEPS, identical, last_is_best, recipe, section

pytestmark = pytest.mark.usefixtures("one_thread")


def test_penalties_shrink_the_kernels_and_nothing_else(workspace: Workspace) -> None:
    sizes, others, task = [], [], last_is_best(workspace.task)
    for scheduled in ((), (Scheduled(rule=L0(alpha=1e-3, beta=5.0, l2=1e-3)),)):
        module = workspace.fresh_module()
        changed = section(lr=1e-2)
        with penalties(module, scheduled, changed.steps) as ours:
            fit(module, task, changed, name="stage", seed=0, terms=ours.terms)
        kernels = [k.weight for k in view_of(module).kernels]
        watched = {id(k) for k in kernels}
        sizes.append(sum(float(k.detach().abs().sum()) for k in kernels))
        others.append(sum(float(p.detach().abs().sum()) for p in module.parameters() if id(p) not in watched))
    assert sizes[1] < 0.8 * sizes[0]
    assert others[1] > 0.8 * others[0]


def test_a_teacher_pulls_the_student_and_stays_as_it_is(workspace: Workspace) -> None:
    torch.manual_seed(1)
    master = workspace.fresh_module()
    for parameter in master.parameters():
        nn.init.normal_(parameter, std=0.5)
    untouched = copy.deepcopy(master)
    images = torch.stack([workspace.task.draws[i][0] for i in range(4)])
    images, _ = workspace.task.prepare(images, torch.zeros(4, 32, 32, dtype=torch.long))
    distance = []
    for weight in (0.0, 10.0):
        term = teacher_term(master.train(), DistillSection(weight=weight, temperature=2.0), ignore_index=255)
        student = workspace.fresh_module()
        changed = section(lr=1e-2, steps=30, evaluate_every=30)
        fit(student, last_is_best(workspace.task), changed, name="stage", seed=0, terms={"teacher": term})
        with torch.no_grad():
            answers = [net.eval()(images).softmax(1) for net in (student, master)]
        distance.append(float((answers[0] - answers[1]).abs().mean()))
    assert distance[1] < 0.8 * distance[0]
    assert identical(master, untouched)
    assert not master.training
    assert all(p.grad is None for p in master.parameters())


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_mixtures_are_sums_and_patchworks_of_two(count: int) -> None:
    """Every image holds a number of its own in the first channel and its double in the second."""
    numbers = torch.arange(1.0, count + 1)
    images = numbers[:, None, None, None] * torch.tensor([1.0, 2.0])[None, :, None, None] * torch.ones(count, 2, 6, 10)
    untouched = images.clone()
    sizes = set[int]()
    for seed in range(30):
        torch.manual_seed(seed)
        made = mixed(images)
        torch.manual_seed(seed)
        assert torch.equal(made, mixed(images)) and torch.equal(images, untouched)
        assert made.shape == images.shape
        torch.testing.assert_close(made[:, 1], 2 * made[:, 0])
        torch.manual_seed(seed)
        others = numbers.roll(int(torch.randint(1, max(count, 2), ())))
        assert count == 1 or not bool((others == numbers).any())
        for index, image in enumerate(made[:, 0]):
            own, other = float(numbers[index]), float(others[index])
            found = image.unique()
            if index < count // 2:
                assert float(found.max() - found.min()) < 1e-5
                assert min(own, other) - 1e-5 <= float(found[0]) <= max(own, other) + 1e-5
            else:
                assert set(found.tolist()) <= {own, other}
                rows, columns = (image == other).any(1), (image == other).any(0)
                if own != other:
                    assert int((image == other).sum()) == int(rows.sum()) * int(columns.sum())
                    sizes.add(int(rows.sum()))
    assert count == 1 or len(sizes) > 3


def test_a_net_taught_on_mixtures_sees_no_label(workspace: Workspace) -> None:
    """Targets turned round change nothing, and the images of a step are not those of the task."""
    torch.manual_seed(1)
    master = workspace.fresh_module()
    seen, nets = list[Tensor](), list[nn.Module]()

    def turned(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        images, targets = workspace.task.prepare(images, targets)
        return images, 1 - targets.clamp(max=1)

    for prepare in (workspace.task.prepare, turned):
        task = on_mixtures(dataclasses.replace(workspace.task, prepare=prepare))
        term = teacher_term(copy.deepcopy(master), DistillSection(mixed=True), ignore_index=-1)
        student = workspace.fresh_module()
        result = fit(
            student, last_is_best(task), section(steps=3, evaluate_every=3), name="stage", seed=0,
            terms={"teacher": term}, after_step=[lambda step: seen.append(step.images.clone())],
        )  # fmt: skip
        assert result.terms["teacher"] > 0
        nets.append(student)
    assert identical(*nets)
    plain = list[Tensor]()
    changed = section(steps=3, evaluate_every=3)
    look = [lambda step: plain.append(step.images.clone())]
    fit(workspace.fresh_module(), last_is_best(workspace.task), changed, name="stage", seed=0, after_step=look)
    assert not any(torch.equal(a, b) for a, b in zip(seen, plain))


def test_mixtures_need_a_teacher_who_counts() -> None:
    with pytest.raises(ConfigError, match=r"finetune\.distill: mixed images have no label"):
        parse_recipe({**recipe().model_dump(mode="json"), "finetune": {
            "fit": {"steps": 1}, "distill": {"weight": 0.0, "mixed": True},
        }})  # fmt: skip


def test_masks_hold_through_training_and_the_plan_is_kept(workspace: Workspace, tmp_path: Path) -> None:
    net = PrunedModel.from_module(workspace.fresh_module(), torch.randn(1, 3, 32, 32))
    net.apply_cut([unit.label for family in net.channels.families for unit in family.units[::2]])
    masked = [(name, axis) for name, axes in net.plan.initializers.items() for axis in axes if axis.masked]
    assert len(masked) > 10
    calls = []

    def silent(state: Mapping[str, Tensor]) -> bool:
        return all(
            not state[name].index_select(axis.axis, torch.tensor(axis.cut)).any()
            and bool(state[name].index_select(axis.axis, torch.tensor(axis.keep)).any())
            for name, axis in masked
        )

    class Watching(Silent):
        def step(self, done: int, values: Mapping[str, float]) -> None:
            assert len(calls) == done
            assert silent(net.module.state_dict())

    def hold(step: Step) -> None:
        assert step.number == len(calls) and step.module is net.module
        calls.append(None)
        net.hold_masks()

    changed = section(lr=1e-2, weight_decay=1e-2, optimizer="sgd")
    fit(
        net.module,
        workspace.task,
        changed,
        name="stage",
        seed=0,
        plan=net.plan,
        after_step=[hold],
        directory=tmp_path / "run",
        progress=Watching(),
    )
    assert len(calls) == STEPS
    assert silent(net.module.state_dict())
    saved = load_checkpoint(tmp_path / "run")
    assert saved.plan == net.plan
    assert silent(saved.model)


def test_every_term_is_logged_by_its_name_and_kept(workspace: Workspace, tmp_path: Path) -> None:
    heard: list[Mapping[str, float]] = []

    class Listening(Silent):
        def step(self, done: int, values: Mapping[str, float]) -> None:
            heard.append(dict(values))

    terms = {"twice": lambda step: torch.tensor(2.0 * step.number), "seven": lambda step: torch.tensor(7.0)}
    given = (workspace.fresh_module(), workspace.task, section())
    directory = tmp_path / "run"
    first = fit(*given, name="stage", seed=0, terms=terms, directory=directory, progress=Listening())
    assert heard[3]["twice"] in (4.0, 6.0) and {"loss", "twice", "seven"} <= heard[0].keys()
    assert first.terms == {"twice": 2.0 * (STEPS - 1), "seven": 7.0}
    again = fit(*given, name="stage", seed=0, terms=terms, directory=directory)
    assert again.reused and again.terms == first.terms
    plain = workspace.fresh_module()
    fit(plain, workspace.task, section(), name="stage", seed=0)
    assert identical(given[0], plain)  # a term without gradients moves nothing


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_term_that_is_not_finite_is_named(workspace: Workspace, value: float) -> None:
    terms = {"fine": lambda step: torch.tensor(1.0), "broken": lambda step: torch.tensor(value)}
    with pytest.raises(TrainingError, match=f"stage: broken is {value} at step 0; no checkpoint") as caught:
        fit(workspace.fresh_module(), workspace.task, section(), name="stage", seed=0, terms=terms)
    assert "regularizer's weight" in caught.value.hint


def test_terms_see_every_step_and_calls_come_in_order(workspace: Workspace) -> None:
    seen: list[tuple[str, int]] = []
    net, plain = workspace.fresh_module(), workspace.fresh_module()

    def term(step: Step) -> Tensor:
        assert step.module is net and step.logits.requires_grad
        assert step.images.shape == (2, 3, 32, 32) and step.images.dtype == torch.float32
        assert step.targets.shape == (2, 32, 32) and step.logits.shape == (2, 2, 32, 32)
        seen.append(("term", step.number))
        return 0 * step.logits.sum()

    def call(name: str) -> AfterStep:
        return lambda step: seen.append((name, step.number))

    calls = [call("first"), call("second")]
    fit(net, workspace.task, section(), name="stage", seed=0, terms={"zero": term}, after_step=calls)
    assert seen == [(name, number) for number in range(STEPS) for name in ("term", "first", "second")]
    fit(plain, workspace.task, section(), name="stage", seed=0)
    assert identical(net, plain)  # the term was zero
