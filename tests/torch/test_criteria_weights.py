"""Criteria on weights, on tensors small enough to reckon by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import nn

from edgeslim.errors import ConfigError, InvariantError
from edgeslim.exporter.channels import ChannelMap
from edgeslim.trainer.criteria import CRITERIA
from edgeslim.trainer.criteria.bn_scale import BnScale
from edgeslim.trainer.criteria.geometric_median import GeometricMedian, mean_distances
from edgeslim.trainer.criteria.gradient_count import GradientCount, kernel_differences, map_differences
from edgeslim.trainer.criteria.l1 import L1
from edgeslim.trainer.criteria.l2 import L2
from edgeslim.trainer.criteria.ln_norm import LnNorm, order_of_depth
from edgeslim.trainer.criteria.random import Random
from edgeslim.trainer.criteria.redundancy import Redundancy, replaceable
from edgeslim.trainer.criteria.registry import register
from edgeslim.trainer.criteria.taylor import Taylor
from edgeslim.trainer.criteria.units import Pooling
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.regularizers.gradient_count import kernel_differences as penalised_differences

from . import nets

NONE = np.empty(0, np.float32)
FILTERS = hnp.arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(2, 5)), elements=st.floats(-10, 10))


@dataclass(frozen=True)
class Graph:
    """A net that is a graph and no module."""

    graph: ir.Model
    channels: ChannelMap


@pytest.fixture(scope="module")
def plain() -> PrunedModel:
    torch.manual_seed(0)
    return PrunedModel.from_module(nets.randomized(nets.Plain()), torch.randn(1, 3, 16, 16))


def test_scores_of_a_net_by_hand(plain: PrunedModel) -> None:
    weights = [plain.module.get_parameter(n).detach().double().flatten(1) for n in ("a.0.weight", "b.0.weight")]
    scales = [plain.module.get_parameter(n).detach().double() for n in ("a.1.weight", "b.1.weight")]
    wanted = {
        "l2": [(w.square().mean(1).sqrt() / w.square().mean(1).sqrt().mean()).numpy() for w in weights],
        "geometric_median": [(d / d.mean()).numpy() for d in (torch.cdist(w, w).mean(1) for w in weights)],
        "bn_scale": [s.abs().numpy() for s in scales],
    }
    for name, own in wanted.items():
        np.testing.assert_allclose(CRITERIA[name]().score(plain, NONE), np.concatenate(own), rtol=1e-6)


# --- distances and twins ---------------------------------------------------------------------------------------


def test_distances_by_hand() -> None:
    points = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]])
    np.testing.assert_allclose(mean_distances(points), [9 / 3, 8 / 3, 7 / 3])
    np.testing.assert_array_equal(mean_distances(np.ones((3, 4))), np.zeros(3))


@given(FILTERS, st.floats(0.5, 10.0))
def test_distances_are_the_formula_and_grow_with_the_filters(filters: NDArray[np.float64], factor: float) -> None:
    wanted = np.sqrt(np.square(filters[:, None] - filters[None]).sum(2)).mean(1)
    np.testing.assert_allclose(mean_distances(filters), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mean_distances(factor * filters), factor * mean_distances(filters), rtol=1e-6, atol=1e-4)


def test_the_smaller_of_two_parallel_filters_is_replaceable() -> None:
    filters = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, -4.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1e-3]])
    np.testing.assert_allclose(replaceable(filters, 0.8), [1, 1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(replaceable(np.ones((3, 2)), 0.8), [0, 1, 1])  # of equals all but the first
    np.testing.assert_array_equal(replaceable(np.ones((3, 1)), 0.8), np.zeros(3))  # one weight has no direction


def test_tau_is_where_redundancy_begins() -> None:
    filters = np.array([[2.0, 0.0], [0.6, 0.8]])
    assert replaceable(filters, 0.5)[1] == pytest.approx(0.6)
    assert replaceable(filters, 0.7)[1] == 0.0


@settings(max_examples=30)
@given(FILTERS, st.floats(0.0, 0.99))
def test_replaceable_is_between_nothing_and_all(filters: NDArray[np.float64], tau: float) -> None:
    found = replaceable(filters, tau)
    assert np.all((found == 0.0) | ((found > tau) & (found <= 1.0)))
    assert found[np.square(filters).sum(1).argmax()] == 0.0
    assert np.all(replaceable(filters, 0.99) <= found)


def test_twins_planted_in_a_net_are_found(plain: PrunedModel) -> None:
    module = nets.randomized(nets.Plain())
    with torch.no_grad():
        weight = module.get_parameter("b.0.weight")
        weight[6] = 0.9 * weight[2]
    twins = PrunedModel(module, torch.zeros(1, 3, 16, 16), plain.channels)
    scores = Redundancy().score(twins, NONE)[8:]
    assert scores.argmin() == 6 and scores[6] < 1e-6 < 0.1 < np.delete(scores, 6).min()
    np.testing.assert_allclose(scores[:2], L2().score(twins, NONE)[8:][:2] * scores[0] / L2().score(twins, NONE)[8])


# --- counts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 3, 1, 1), (4, 5), (2, 3, 5), (2, 1, 3, 1), (2, 2, 2, 2, 2)])
def test_differences_are_those_of_the_penalty(shape: tuple[int, ...]) -> None:
    weights = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = penalised_differences(weights).abs().sum(0).flatten(1)
    np.testing.assert_allclose(kernel_differences(weights.numpy()), wanted.numpy())


def test_a_constant_map_has_no_gradient() -> None:
    flat = np.full((1, 4, 4), 7.0)
    step = np.zeros((1, 4, 4))
    step[0, :, 2:] = 1.0
    counted = GradientCount(beta=None).count(map_differences(np.concatenate([flat, step])))
    np.testing.assert_allclose(counted, [0.0, 4 / 16])
    np.testing.assert_array_equal(GradientCount().count(map_differences(np.concatenate([flat, flat]))), [0.0, 0.0])


@given(hnp.arrays(np.float64, (3, 6), elements=st.just(0.0) | st.floats(1e-9, 100.0)), st.floats(0.5, 100.0))
def test_counts_lie_between_none_and_all_whatever_the_scale(d: NDArray[np.float64], factor: float) -> None:
    for rule in (GradientCount(), GradientCount(beta=None), GradientCount(beta=2.0)):
        counted = rule.count(d)
        assert np.all((counted >= 0.0) & (counted <= 1.0))
        if d.max() > 1e-3:
            np.testing.assert_allclose(GradientCount(beta=2.0).count(factor * d), GradientCount(beta=2.0).count(d))
    np.testing.assert_allclose(GradientCount(beta=None, eps=0.0).count(d), (d > 0).mean(1))


def test_a_sharp_smooth_count_is_the_hard_one() -> None:
    d = np.array([[0.0, 1.0, 2.0], [0.0, 0.0, 3.0]])
    np.testing.assert_allclose(GradientCount(beta=1e6).count(d), GradientCount(beta=None, eps=0.0).count(d))
    assert np.all(GradientCount(beta=1.0).count(d) < GradientCount(beta=2.0).count(d))


# --- the rest --------------------------------------------------------------------------------------------------


def test_the_order_of_the_ln_norm_by_law() -> None:
    assert [LnNorm(n="stages").order(d, 6) for d in range(6)] == [1.0, 1.0, 2.0, 2.0, math.inf, math.inf]
    assert [LnNorm(n="stages").order(d, 3) for d in range(3)] == [1.0, 2.0, math.inf]
    assert LnNorm(n="stages").order(0, 1) == 1.0
    assert LnNorm(n=3).order(1, 9) == 3.0
    assert LnNorm(n="inf").order(0, 9) == LnNorm(n=math.inf).order(4, 9) == math.inf
    assert all(LnNorm().order(d, 9) == order_of_depth(d, 9) for d in range(9))


def test_a_net_without_batch_norms_has_no_scales() -> None:
    net = PrunedModel.from_module(nets.Bare(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="criterion bn_scale: no channel of this net that could go has a batch norm"):
        BnScale().score(net, NONE)


def test_chance_is_repeatable_and_differs_by_seed(plain: PrunedModel) -> None:
    first, again, other = (Random(seed=s).score(plain, NONE) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all() and np.all((first >= 0) & (first < 1))


def test_a_graph_has_no_gradients(plain: PrunedModel) -> None:
    net = Graph(plain.graph, plain.channels)
    for rule in (Taylor(), GradientCount(on="loss")):
        with pytest.raises(ConfigError, match=f"criterion {rule.name} looks at gradients of the loss") as caught:
            rule.score(net, np.zeros((1, 3, 16, 16), np.float32))
        assert "l1 or ln_norm" in caught.value.hint
    assert GradientCount(on="kernel").score(net, NONE).shape == (16,)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LnNorm(n=0.5), "ln_norm: n is 0.5; it must be a number from 1"),
        (lambda: LnNorm(n=math.nan), "ln_norm: n is nan"),
        (lambda: LnNorm(n="deep"), "ln_norm: n is 'deep'"),  # type: ignore[arg-type]
        (lambda: Redundancy(tau=1.0), "redundancy: tau is 1.0; it must be a number from 0, below 1"),
        (lambda: GradientCount(on="image"), "gradient_count: on is 'image'"),  # type: ignore[arg-type]
        (lambda: GradientCount(beta=0.0), "gradient_count: beta is 0.0; it must be a finite number above 0"),
        (lambda: GradientCount(eps=-1.0), "gradient_count: eps is -1.0"),
        (lambda: GradientCount(window=0), "gradient_count: window is 0; it must be a whole number from 1"),
        (lambda: GradientCount(rate=math.inf), "gradient_count: rate is inf"),
        (lambda: Random(seed=-1), "random: seed is -1; it must be a whole number from 0"),
    ],
)
def test_options_are_checked_at_birth(make: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        make()  # type: ignore[operator]
    assert caught.value.hint


def test_two_criteria_of_one_name() -> None:
    with pytest.raises(InvariantError, match="two criteria of one name"):
        register(L1, L2, L1)
    assert {c().name for c in CRITERIA.values()} == set(CRITERIA)


def test_coupled_layers_can_be_scored_by_the_first_alone() -> None:
    torch.manual_seed(0)
    net = PrunedModel.from_module(nets.randomized(nets.Residual()), torch.zeros(1, 3, 16, 16))
    a, b = (net.module.get_parameter(f"{n}.0.weight").detach().double().abs().mean((1, 2, 3)) for n in "ab")
    a, b = a / a.mean(), b / b.mean()
    for reduction, wanted in {"first": a, "sum": a + b, "max": torch.maximum(a, b), "mean": (a + b) / 2}.items():
        scores = L1(pool=Pooling(reduction=reduction)).score(net, NONE)  # type: ignore[arg-type]
        np.testing.assert_allclose(scores, wanted.numpy(), rtol=1e-6)


def test_filters_that_read_different_channels_cannot_stand_in_for_each_other() -> None:
    torch.manual_seed(0)
    net = nets.randomized(nets.Depthwise())
    with torch.no_grad():
        net.get_parameter("b.weight").copy_(torch.arange(1.0, 9.0).reshape(8, 1, 1, 1).expand(8, 1, 3, 3))
    model = PrunedModel.from_module(net, torch.zeros(1, 3, 16, 16))
    a, b = (model.module.get_parameter(n).detach().double().flatten(1) for n in ("a.0.weight", "b.weight"))
    sizes = [w.norm(dim=1) / w.norm(dim=1).mean() for w in (a, b)]
    np.testing.assert_allclose(Redundancy().score(model, NONE), (sizes[0] + sizes[1]).numpy(), rtol=1e-6)
    distances = torch.cdist(a, a).mean(1)
    np.testing.assert_allclose(GeometricMedian().score(model, NONE), (distances / distances.mean()).numpy(), rtol=1e-6)


def test_filters_of_one_group_are_compared() -> None:
    torch.manual_seed(0)
    net = nets.randomized(nets.Grouped())
    with torch.no_grad():
        net.get_parameter("b.weight")[1::2] = 0.5 * net.get_parameter("b.weight")[::2]
    model = PrunedModel.from_module(net, torch.zeros(1, 3, 16, 16))
    (second,) = (f for f in model.channels.families if f.name == "b.weight")
    scores = Redundancy().score(model, NONE)[-second.width :]
    assert second.width == 2 and scores[1] < 1e-6 < scores[0]


def test_a_grouped_convolution_and_a_transposed_one_have_filters(plain: PrunedModel) -> None:
    for net in (nets.Grouped(), nets.Upsampled("transpose")):
        torch.manual_seed(0)
        module: nn.Module = nets.randomized(net)
        model = PrunedModel.from_module(module, torch.zeros(1, 3, 16, 16))
        assert np.isfinite(GeometricMedian().score(model, NONE)).all()
