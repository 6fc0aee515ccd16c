"""Every criterion on every kind of family: planted channels, permuted channels, recipes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import edgeslim
from edgeslim.errors import ConfigError
from edgeslim.exporter.channels import ChannelMap
from edgeslim.progress import Silent
from edgeslim.trainer.criteria import CRITERIA, Criterion, Pooling, build_criterion, criterion
from edgeslim.trainer.criteria.bn_scale import BnScale
from edgeslim.trainer.criteria.geometric_median import GeometricMedian
from edgeslim.trainer.criteria.gradient_count import GradientCount
from edgeslim.trainer.criteria.l1 import L1
from edgeslim.trainer.criteria.l2 import L2
from edgeslim.trainer.criteria.ln_norm import LnNorm
from edgeslim.trainer.criteria.random import Random
from edgeslim.trainer.criteria.redundancy import Redundancy
from edgeslim.trainer.criteria.taylor import Taylor
from edgeslim.trainer.lesson import NO_LESSON, Learning
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe import PruneSection
from edgeslim.trainer.recipe_file import parse_recipe
from edgeslim.trainer.stages import train_and_prune
from edgeslim.trainer.workspace import open_workspace

from . import nets
from .runs import recipe

IMAGES = np.random.default_rng(0).standard_normal((3, 3, 16, 16), np.float32)
CHOICES: tuple[Criterion, ...] = (
    L1(),
    L2(),
    LnNorm(),
    LnNorm(n="stages"),
    LnNorm(n=2),
    BnScale(),
    Taylor(),
    GeometricMedian(),
    Redundancy(),
    Redundancy(tau=0.0),
    GradientCount(on="kernel", beta=None),
    GradientCount(on="feature", beta=None),
    GradientCount(on="feature"),
    GradientCount(on="loss", window=4),
    Random(),
)
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "plain": nets.Plain,
    "residual": nets.Residual,
    "padded shortcut": nets.OptionA,
    "concat": nets.Dense,
    "gate": nets.Gate,
    "depthwise": lambda: nets.Depthwise(2),
    "grouped": nets.Grouped,
    "split": nets.Split,
    "flat": nets.Flat,
    "channels last": nets.ChannelsLast,
    "transposed": lambda: nets.Upsampled("transpose"),
}


def named(rule: Criterion) -> str:
    return f"{rule.name}-{getattr(rule, 'on', getattr(rule, 'n', getattr(rule, 'tau', '')))}"


@functools.cache
def analysed(kind: type[nn.Module]) -> ChannelMap:
    """The analysis reads no weights: once for all nets of a kind."""
    return PrunedModel.from_module(kind(), torch.zeros(1, 3, 16, 16)).channels


def model_of(module: nn.Module) -> PrunedModel:
    """The net in front of criteria; its kind is built without arguments."""
    return PrunedModel(module.eval(), torch.zeros(1, 3, 16, 16), analysed(type(module)))


def score(rule: Criterion, net: PrunedModel, images: NDArray[np.float32] = IMAGES) -> NDArray[np.float64]:
    return rule.score(Learning(net=net, lesson=NO_LESSON), images)


@pytest.fixture(scope="module")
def models() -> dict[str, PrunedModel]:
    torch.manual_seed(0)
    example = torch.zeros(1, 3, 16, 16)
    return {name: PrunedModel.from_module(nets.randomized(make()), example) for name, make in FAMILIES.items()}


@pytest.mark.parametrize("rule", CHOICES, ids=named)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_criterion_scores_every_kind_of_family(
    models: dict[str, PrunedModel], name: str, rule: Criterion
) -> None:
    net = models[name]
    scores = score(rule, net)
    assert scores.shape == net.channels.unit_labels.shape and scores.dtype == np.float64
    finite = np.isfinite(scores)
    if rule.name != "bn_scale":  # knows only channels with a batch norm behind them
        assert finite.all()
    assert finite.any() and np.all(scores[finite] >= 0.0) and np.all(scores[~finite] == np.inf)
    np.testing.assert_array_equal(score(rule, net), scores)  # nothing is left to chance


@pytest.mark.parametrize("rule", [c for c in CHOICES if c.name != "random"], ids=named)
def test_a_filter_of_nothing_scores_lowest(rule: Criterion) -> None:
    torch.manual_seed(0)
    module = nets.randomized(nets.Plain())
    with torch.no_grad():
        for name in ("a.0.weight", "a.1.weight", "a.1.bias"):
            module.get_parameter(name)[3] = 0.0
    scores = score(rule, model_of(module))[:8]
    assert scores.argmin() == 3 and scores[3] < np.delete(scores, 3).min()
    if rule.name != "geometric_median":
        assert scores[3] == 0.0


@pytest.mark.parametrize("rule", [c for c in CHOICES if c.name != "random"], ids=named)
def test_permuted_channels_have_permuted_scores(rule: Criterion) -> None:
    torch.manual_seed(0)
    module, order = nets.randomized(nets.Plain()), torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    scores = score(rule, model_of(module))
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.startswith("a.") and tensor.ndim:
                tensor.copy_(tensor[order].clone())
            elif name == "b.0.weight":
                tensor.copy_(tensor[:, order].clone())
    permuted = score(rule, model_of(module))
    np.testing.assert_allclose(permuted[:8], scores[:8][order.numpy()], rtol=1e-4)
    np.testing.assert_allclose(permuted[8:], scores[8:], rtol=1e-4)


@pytest.mark.parametrize(
    "rule",
    [c for c in CHOICES if getattr(c, "pool", None) == Pooling() and getattr(c, "on", "") != "loss"],
    ids=named,
)
def test_scores_relative_to_the_layer_do_not_know_its_scale(rule: Criterion) -> None:
    torch.manual_seed(0)
    module = nets.randomized(nets.Plain())
    scores = score(rule, model_of(module))
    with torch.no_grad():
        for name in ("b.0.weight", "b.1.weight", "b.1.bias"):  # kernel and feature map, both twice as large
            module.get_parameter(name).mul_(2.0)
        for name in ("b.1.running_mean",):
            module.state_dict()[name].mul_(2.0)
        module.state_dict()["b.1.running_var"].mul_(4.0)
    np.testing.assert_allclose(score(rule, model_of(module)), scores, rtol=1e-3)


@pytest.mark.parametrize("rule", CHOICES, ids=named)
@pytest.mark.parametrize("pool", [Pooling(reduction="max", ranking="local"), Pooling(normalisation="standard")])
def test_every_criterion_takes_every_pooling(rule: Criterion, pool: Pooling) -> None:
    torch.manual_seed(0)
    net = model_of(nets.randomized(nets.Residual()))
    scores = score(dataclasses.replace(rule, pool=pool), net)  # type: ignore[type-var]
    assert scores.shape == (8,) and np.isfinite(scores).all()
    if pool.ranking == "local":
        assert scores.max() <= 1.0 and scores.min() > 0.0


# --- by name, by object, by recipe -----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [L2(), LnNorm(), LnNorm(n=2), Taylor()], ids=named)
def test_prune_takes_names_and_objects(rule: Criterion) -> None:
    torch.manual_seed(0)
    module, images = nets.randomized(nets.Residual()), torch.from_numpy(IMAGES)
    pruned = edgeslim.prune(module, images[:1], ratio=0.5, criterion=rule, calibration=images)
    assert [len(f.keep) for f in pruned.plan.families] == [4]
    if rule == CRITERIA[rule.name]():
        named_one = edgeslim.prune(module, images[:1], ratio=0.5, criterion=rule.name, calibration=images)
        assert named_one.plan == pruned.plan


def test_a_criterion_of_ones_own() -> None:
    class Last:
        name, looks_at = "last", "weights"

        def score(self, net: object, images: object) -> NDArray[np.float64]:
            return np.arange(16.0)

    torch.manual_seed(0)
    module, example = nets.randomized(nets.Plain()), torch.zeros(1, 3, 16, 16)
    pruned = edgeslim.prune(module, example, ratio=0.5, criterion=Last())  # type: ignore[arg-type]
    assert [f.keep for f in pruned.plan.families] == [(4, 5, 6, 7)] * 2
    for returned, said in (
        (np.arange(8.0), r"criterion last scored float64 \(8,\); this net has 16 units"),
        (np.full(16, np.nan), "criterion last scored 16 of 16 units nan"),
        ([1.0] * 16, "criterion last scored list"),
    ):
        Last.score = lambda self, net, images, returned=returned: returned  # type: ignore[assignment,misc]
        with pytest.raises(ConfigError, match=said):
            edgeslim.prune(module, example, ratio=0.5, criterion=Last())  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", ["l3", "", 3, None, ["l1"], L1, object()])
def test_what_is_no_criterion(wanted: object) -> None:
    with pytest.raises(ConfigError, match=r"criterion .* is unknown") as caught:
        criterion(wanted)  # type: ignore[arg-type]
    assert "geometric_median" in caught.value.hint


def sectioned(options: dict[str, object], budget: dict[str, object] | None = None) -> PruneSection:
    data = recipe().model_dump(mode="json")
    data["prune"] = {"criterion": options, "budget": budget or {"name": "ratio", "ratio": 0.5}}
    return parse_recipe(data).prune


def test_every_criterion_has_its_recipe_with_the_same_defaults() -> None:
    for name, make in CRITERIA.items():
        assert build_criterion(sectioned({"name": name}).criterion) == make()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"name": "ln_norm", "n": "stages"}, LnNorm(n="stages")),
        ({"name": "ln_norm", "n": 2}, LnNorm(n=2.0)),
        ({"name": "ln_norm", "n": "inf", "ranking": "local"}, LnNorm(n="inf", pool=Pooling(ranking="local"))),
        ({"name": "l1", "reduction": "max"}, L1(pool=Pooling(reduction="max"))),
        ({"name": "l1", "normalisation": "l2"}, L1(pool=Pooling(normalisation="l2"))),
        ({"name": "taylor", "reduction": "mean"}, Taylor(pool=Pooling(reduction="mean", normalisation="none"))),
        ({"name": "random", "seed": 3}, Random(seed=3)),
        ({"name": "redundancy", "tau": 0.5}, Redundancy(tau=0.5)),
        (
            {"name": "gradient_count", "on": "loss", "beta": 2, "window": 3, "rate": 0.1, "images": 4},
            GradientCount(on="loss", beta=2.0, window=3, rate=0.1),
        ),
    ],
)  # fmt: skip
def test_options_of_a_recipe_reach_the_criterion(options: dict[str, object], wanted: Criterion) -> None:
    section = sectioned(options)
    assert build_criterion(section.criterion) == wanted
    assert PruneSection.model_validate_json(section.model_dump_json()) == section


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "ln_norm", "n": 0.5}, "prune.criterion.n"),
        ({"name": "ln_norm", "n": "depths"}, "prune.criterion.n"),
        ({"name": "redundancy", "tau": 1}, "prune.criterion.tau: input should be less than 1"),
        ({"name": "gradient_count", "beta": 0}, "prune.criterion.beta: input should be greater than 0"),
        ({"name": "gradient_count", "window": 0}, "prune.criterion.window"),
        ({"name": "l1", "images": 3}, "prune.criterion.images: unknown key"),
        ({"name": "l2", "ranking": "worldwide"}, "prune.criterion.ranking: input should be 'local' or 'global'"),
        ({"name": "l3"}, "prune.criterion.name: 'l3' is not one of"),
    ],
)
def test_mistakes_in_a_recipe(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sectioned(options)
    assert said in caught.value.message


@pytest.mark.parametrize("options", [{"name": "taylor", "images": 3}, {"name": "gradient_count", "on": "loss"}])
def test_a_whole_run_with_a_criterion_that_learns(options: dict[str, object], tmp_path: Path) -> None:
    data = recipe().model_dump(mode="json")
    short = {"steps": 1, "batch_size": 2}
    schedule = {"name": "iterative", "rounds": 2, "between": short}
    data |= {"train": short, "finetune": {"fit": short}}
    data["prune"] = {"criterion": options, "budget": {"name": "macs", "keep": 0.6}, "schedule": schedule}
    data["prune"] |= {"width_multiple": 1, "min_width": 1}
    trained = train_and_prune(open_workspace(parse_recipe(data), tmp_path, Silent()), Silent())
    assert trained.pruned.cut
