"""The parts of gradual pruning: its laws, its recipe, the pressure, and how cut weights are held while a net trains."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgeslim.errors import ConfigError, InvariantError
from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.plan import plan_from_cut
from edgeslim.trainer.budget import Ratio, WidthLimits
from edgeslim.trainer.compact import weaken
from edgeslim.trainer.criteria import criterion
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe import Recipe
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.recipe_gradual import GradualSchedule
from edgeslim.trainer.regularizers import REGULARIZERS, View, view_of
from edgeslim.trainer.schedules import Gradual, GradualCuts, Scoring, build_gradual
from edgeslim.trainer.task import Step
from edgeslim.trainer.workspace import calibration_notes

from . import nets
from .runs import recipe

L1_ALONE = Scoring(criterion=criterion("l1"), images=np.empty(0, np.float32))
HALF = Ratio(ratio=0.5, limits=WidthLimits(multiple=1, minimum=1))
FIT = {"steps": 20, "batch_size": 2}


@functools.cache
def channels(make: type[nn.Module]) -> ChannelMap:
    """The analysis, which depends on the architecture alone."""
    return PrunedModel.from_module(make(), torch.randn(1, 3, 16, 16)).channels


def pruned(module: nn.Module) -> PrunedModel:
    """A copy of `module`, ready to be cut."""
    return PrunedModel(copy.deepcopy(module).eval(), torch.randn(1, 3, 16, 16), channels(type(module)))


@given(st.integers(1, 12), st.floats(0.0, 0.5), st.floats(0.6, 1.0), st.integers(130, 1000))
def test_every_step_is_in_one_interval(cuts: int, start: float, end: float, steps: int) -> None:
    section = GradualSchedule(name="gradual", cuts=cuts, start=start, end=end)
    section.check_steps(steps)
    schedule = build_gradual(section, steps)
    assert list(schedule.at) == sorted(set(schedule.at)) and len(schedule.at) == cuts + 1
    assert schedule.at[0] == round(start * steps) and schedule.last == round(end * steps)
    numbers = [schedule.interval(taken) for taken in range(1, steps + 1)]
    inside = numbers[schedule.at[0] : schedule.last]
    assert set(numbers[: schedule.at[0]] + numbers[schedule.last :]) <= {None}
    assert inside == sorted(inside) and set(inside) == set(range(1, cuts + 1))  # type: ignore[type-var]
    assert all(schedule.interval(schedule.at[k]) == k for k in range(1, cuts + 1))
    assert schedule.share(cuts) == pytest.approx(1.0)


@given(st.floats(0.0, 20.0), st.integers(1, 200))
def test_what_is_left_of_a_candidate_does_not_depend_on_the_steps(pressure: float, length: int) -> None:
    schedule = Gradual(at=(7, 7 + length), pressure=pressure)
    factors = [schedule.factor(taken) for taken in range(8, 8 + length)]
    assert math.prod(factors) == pytest.approx(math.exp(-pressure), rel=1e-6)
    assert all(a >= b for a, b in itertools.pairwise(factors))  # it grows
    assert all(0.0 < f <= 1.0 for f in factors) and (pressure > 0 or set(factors) == {1.0})


def with_schedule(schedule: dict[str, Any], **more: object) -> Recipe:
    data = recipe().model_dump(mode="json", exclude_none=True) | {"sparsify": {"fit": FIT, "regularizers": []}}
    data["prune"]["schedule"] = {"name": "gradual", **schedule}
    return parse_recipe({name: section for name, section in (data | more).items() if section is not None})


def test_a_recipe_may_have_no_penalty_at_all() -> None:
    found = with_schedule({"cuts": 4})
    assert found.sparsify is not None and found.sparsify.regularizers == ()
    assert found.prune.schedule.cut_steps(20) == (4, 6, 9, 11, 14)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("schedule", "more", "said"),
    [
        ({}, {"sparsify": None}, "prune.schedule gradual cuts while sparsify trains, and sparsify is missing"),
        ({"cuts": 4}, {"weights": {"fraction": 0.5, "finetune": FIT}}, "leave out weights, or use another schedule"),
        ({"cuts": 11}, {}, "11 cuts between steps 4 and 14 of sparsify.fit.steps (20): ask for fewer cuts, or more"),
        ({"start": 0.7}, {}, "end 0.7 is not after start 0.7"),
        ({"cuts": 0}, {}, "prune.schedule.cuts: input should be greater than or equal to 1"),
        ({"end": 1.5}, {}, "prune.schedule.end: input should be less than or equal to 1"),
        ({"pressure": -1}, {}, "prune.schedule.pressure: input should be greater than or equal to 0"),
        ({"between": FIT}, {}, "prune.schedule.between: unknown key"),
    ],
)
def test_mistakes_in_a_recipe(schedule: dict[str, Any], more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_schedule(schedule, **more)
    assert said in caught.value.message


class Tied(nn.Module):
    """Two layers share one kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.b.weight = self.a.weight
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.b(self.a(self.first(x).relu()).relu()).relu())
        return out


@pytest.mark.parametrize("make", [nets.Dense, Tied])
def test_pressure_weakens_what_makes_a_candidate_and_nothing_else(make: type[nn.Module]) -> None:
    module = nets.randomized(make())
    net = pruned(module)
    cut = L1_ALONE.choose(net, HALF)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    weaken(module, plan_from_cut(net.channels, cut), 0.5)
    net.apply_cut(cut)
    masked = net.module.state_dict()
    weakened = 0
    for name, tensor in module.state_dict().items():
        gone = (masked[name] == 0) & (before[name] != 0)
        factors = torch.where(gone, 0.5, 1.0)
        both = sum(axis.masked for axis in net.plan.initializers.get(name, ())) > 1  # 0.25 where two axes meet
        assert both or torch.equal(tensor, before[name] * factors), name
        weakened += int(gone.sum())
    assert weakened > 0


def trained(make: type[nn.Module], pressure: float, optimizer: str) -> tuple[nn.Module, GradualCuts, PrunedModel]:
    """24 steps by hand, with momenta and weight decay; what is cut must be silent in every one."""
    torch.manual_seed(0)
    module = nets.randomized(make()).train()
    net = pruned(module)
    cuts = GradualCuts(
        net, Gradual(at=(4, 8, 12, 16), pressure=pressure), L1_ALONE, HALF, evaluate=lambda _: {"score": 1.0}
    )
    steps: dict[str, Any] = {
        "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, weight_decay=0.1),
        "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
    }
    rule = steps[optimizer](module.parameters())
    for number in range(24):
        images = torch.randn(2, 3, 16, 16)
        rule.zero_grad()
        logits = module(images)
        loss = logits.square().mean() + sum(p.square().sum() for p in module.parameters())
        loss.backward()
        for name, axes in cuts.plan.initializers.items():
            gradient = dict(module.named_parameters())[name].grad if name in dict(module.named_parameters()) else None
            for axis in axes if gradient is not None else ():
                assert not bool(gradient.index_select(axis.axis, torch.tensor(axis.cut)).any()), name
        rule.step()
        cuts(Step(number=number, rate=1.0, module=module, images=images, targets=images, logits=logits, autocast=None))  # type: ignore[arg-type]
        if number + 1 >= 8:
            cuts.check(module, 99)
    return module, cuts, net


@pytest.mark.parametrize(("pressure", "optimizer"), [(0.0, "sgd"), (4.0, "adamw")])
@pytest.mark.parametrize("make", [nets.Dense, nets.Gate, nets.Shared, nets.Residual])
def test_what_is_cut_stays_silent_while_the_rest_trains(make: type[nn.Module], pressure: float, optimizer: str) -> None:
    module, cuts, net = trained(make, pressure, optimizer)
    assert len(net.cut) > 0 and cuts.plan == net.plan
    cuts.close()
    net.load_dense_state(module.state_dict())
    image = torch.randn(1, 3, 16, 16)
    module.eval()
    with torch.no_grad():
        wanted, seen = module(image), net.compact()(image)
    torch.testing.assert_close(seen, wanted, rtol=1e-4, atol=1e-5)
    assert not any(p._backward_hooks for p in module.parameters())


def test_what_was_cut_without_pressure_had_its_weight() -> None:
    """The pressure is felt: weights are all but gone when they are cut, and untouched without."""
    seen: dict[float, list[float]] = {}
    for pressure in (0.0, 6.0):
        torch.manual_seed(0)
        module = nets.randomized(nets.Dense()).train()
        net = pruned(module)
        sizes = seen.setdefault(pressure, [])

        def look(now: nn.Module, sizes: list[float] = sizes) -> dict[str, float]:
            sizes.append(sum(float(p.detach().abs().sum()) for p in now.parameters()))
            return {"score": 0.0}

        cuts = GradualCuts(net, Gradual(at=(0, 10), pressure=pressure), L1_ALONE, HALF, evaluate=look)
        for number in range(10):
            logits = torch.zeros(1)
            cuts(
                Step(number=number, rate=1, module=module, images=logits, targets=logits, logits=logits, autocast=None)
            )  # type: ignore[arg-type]
        cuts.close()
    assert [list(cut) for cut in (cuts.scores,)] == [["cut-1, before", "cut-1, just cut"]]
    (before, after), (pressed, gone) = seen[0.0], seen[6.0]
    readers = after  # the weights that read what is cut go at the cut either way
    assert after == pytest.approx(gone) and before > pressed > readers
    assert pressed - gone < 0.8 * (before - after)


def test_a_net_that_is_not_cut_to_the_end_is_a_bug() -> None:
    module, cuts, _ = trained(nets.Dense, 4.0, "sgd")
    cuts.check(module, 16)
    with pytest.raises(InvariantError, match="weights of step 15 were kept, the final width came with step 16"):
        cuts.check(module, 15)
    loud = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in loud.parameters():
            parameter += 1.0
    with pytest.raises(InvariantError, match="cut channels are not zero"):
        cuts.check(loud, 16)
    cuts.close()


def test_a_class_is_remembered_and_recalled() -> None:
    module, cuts, net = trained(nets.Dense, 4.0, "sgd")
    cuts.unkept.append(("cut-2", "least_squares"))
    tensors, numbers = cuts.memory()
    cuts.close()
    assert tensors == {} and numbers["unkept/cut-2/least_squares"] == 1.0
    other = pruned(module)
    again = GradualCuts(other, Gradual(at=(4, 8, 12, 16)), L1_ALONE, HALF, evaluate=lambda _: {})
    again.recall(module, net.plan, tensors, numbers)
    assert (again.scores, again.unkept, again.plan) == (cuts.scores, cuts.unkept, net.plan)
    assert again.memory() == (tensors, numbers)
    again.close()


@pytest.mark.parametrize("name", [n for n in REGULARIZERS if REGULARIZERS[n]().looks_at == "kernels"])
def test_penalties_do_not_stumble_over_what_is_cut(name: str) -> None:
    """Finite; none for dead filters; the living feel the pull of a net without the dead, up to one factor.

    Of redundancy the factor of its pairs is another than that of its pressure: there the rest holds.
    """
    torch.manual_seed(0)
    module = nets.randomized(nets.Dense())
    net = pruned(module)
    net.apply_cut(L1_ALONE.choose(net, HALF))
    cuts = GradualCuts(net, Gradual(at=(0, 1)), L1_ALONE, HALF, evaluate=lambda _: {})
    cuts.recall(module, net.plan, {}, {})
    rule = REGULARIZERS[name](**({"l2": 0.0} if name == "l0" else {"tau": 0.0} if name == "redundancy" else {}))
    view = view_of(module, share=0.5)
    value = rule.penalty(view)
    gradients = torch.autograd.grad(value, [k.weight for k in view.kernels], allow_unused=True)
    assert bool(value.isfinite())
    weights = dict(module.named_parameters())
    for kernel, gradient in zip(view.kernels, gradients):
        assert gradient is not None
        (named,) = (n for n, p in weights.items() if p is kernel.weight)
        gone = next((a.cut for a in net.plan.initializers.get(named, ()) if a.axis == 0), ())
        assert bool(gradient.isfinite().all())
        assert not bool(gradient[list(gone)].any())
        living = [i for i in range(len(gradient)) if i not in gone]
        if not gone or not living or name == "redundancy":
            continue
        alone = kernel.weight.detach()[living].requires_grad_()
        from_alone = torch.autograd.grad(
            rule.penalty(View(kernels=[type(kernel)(weight=alone)], share=0.5)), alone, allow_unused=True
        )[0]
        ratio = gradient[living][from_alone != 0] / from_alone[from_alone != 0]
        assert ratio.numel() == 0 or float(ratio.max() - ratio.min()) <= 1e-3 * float(ratio.abs().max())
    cuts.close()


def test_a_redundant_pair_without_its_dead_half_is_no_pair() -> None:
    filters = torch.randn(4, 3, 3, 3)
    filters[1] = filters[0]
    weight = nn.Parameter(filters)
    view = View(kernels=[view_of(nn.Conv2d(3, 4, 3)).kernels[0].__class__(weight=weight)], share=1.0)
    rule = REGULARIZERS["redundancy"]()
    assert float(rule.penalty(view).detach()) > 0
    with torch.no_grad():
        weight[1] = 0.0
    assert float(rule.penalty(view).detach()) == 0.0


def test_fewer_images_than_asked_for_are_said() -> None:
    asked = recipe()
    assert calibration_notes(asked, 100) == ()
    few = calibration_notes(asked, 3)
    assert few == (
        "prune.criterion asks for 16 calibration images, and there are 3 different training images: 16 crops of those "
        "are looked at",
        "prune.recovery asks for 32 calibration images, and there are 3 different training images: 32 crops of those "
        "are looked at",
    )
    plain = with_schedule({"cuts": 1}).model_dump(mode="json", exclude_none=True)
    plain["prune"] |= {"criterion": {"name": "l1"}, "recovery": None}
    assert calibration_notes(parse_recipe(plain), 1) == ()
