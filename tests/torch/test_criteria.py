"""Criteria: the Ln-norm against its formula, and planted channels that every criterion must find."""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeslim.errors import ConfigError
from edgeslim.exporter.feature_maps import find_feature_maps, run_feature_maps
from edgeslim.trainer.criteria import criterion
from edgeslim.trainer.criteria.ln_norm import LnNorm, order_of_depth, power_mean
from edgeslim.trainer.criteria.units import Pooling
from edgeslim.trainer.pruned import PrunedModel

from . import nets

IMAGES = np.random.default_rng(0).standard_normal((3, 3, 16, 16), np.float32)
DEAD, STRONG = 2, 5


# --- the formula -----------------------------------------------------------------------------------------------

SANE = st.floats(-1e3, 1e3, width=32)


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=SANE), st.floats(1.0, 8.0))
def test_the_power_mean_is_the_formula(array: NDArray[np.float32], n: float) -> None:
    wanted = np.mean(np.abs(array.astype(np.float64)) ** n, axis=-1) ** (1 / n)
    np.testing.assert_allclose(power_mean(array, n), wanted, rtol=1e-9, atol=1e-30)


@given(hnp.arrays(np.float32, (2, 5), elements=SANE))
def test_the_power_mean_grows_with_its_order_up_to_the_maximum(array: NDArray[np.float32]) -> None:
    means = [power_mean(array, n) for n in (1.0, 1.5, 2.0, 7.0, 64.0, math.inf)]
    for smaller, larger in itertools.pairwise(means):
        assert np.all(smaller <= larger * (1 + 1e-12))
    np.testing.assert_allclose(means[0], np.abs(array.astype(np.float64)).mean(axis=-1))
    np.testing.assert_array_equal(means[-1], np.abs(array).max(axis=-1).astype(np.float64))


@pytest.mark.parametrize("n", [1.0, 2.0, 7.5, 63.9, math.inf])
def test_no_power_overflows_and_zeros_stay_zero(n: float) -> None:
    largest, smallest = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
    array = np.array([[largest] * 4, [smallest] * 4, [0.0] * 4, [largest, 0, 0, 0]], np.float32)
    means = power_mean(array, n)
    assert means.dtype == np.float64
    assert means[2] == 0.0
    np.testing.assert_allclose(means[:2], array[:2, 0].astype(np.float64), rtol=1e-9)
    np.testing.assert_allclose(means[3], float(largest) * (0.25 ** (1 / n) if n < math.inf else 1.0), rtol=1e-9)
    huge = np.array([[1e300, -1e300], [1e-300, 0.0]])  # in double precision, squared out of range
    np.testing.assert_allclose(power_mean(huge, n)[0], 1e300, rtol=1e-9)


@given(st.integers(2, 200))
def test_the_order_runs_from_one_to_infinity(depths: int) -> None:
    orders = [order_of_depth(depth, depths) for depth in range(depths)]
    assert orders[0] == 1.0
    assert orders[-1] == math.inf
    assert all(a <= b for a, b in itertools.pairwise(orders))
    for depth, order in enumerate(orders):
        if order < math.inf:
            assert 1 / order == pytest.approx(1 - depth / (depths - 1))
        else:
            assert 1 - depth / (depths - 1) <= 1 / 64


def test_a_single_layer_has_order_one() -> None:
    assert order_of_depth(0, 1) == 1.0


# --- on nets ---------------------------------------------------------------------------------------------------


def planted(net: nn.Module) -> nn.Module:
    """`a.0` makes channel DEAD silent and channel STRONG loud, in weight and in feature map."""
    net = nets.randomized(net)
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            if name in ("a.0.weight", "a.1.weight"):
                tensor[DEAD] = 1e-4 * tensor[DEAD]
                tensor[STRONG] = 20 * tensor[STRONG].abs()
            elif name == "a.1.bias":
                tensor[DEAD] = 0.0
    return net


@pytest.fixture(scope="module")
def plain() -> PrunedModel:
    torch.manual_seed(0)
    return PrunedModel.from_module(planted(nets.Plain()), torch.randn(1, 3, 16, 16))


@pytest.fixture(scope="module")
def residual() -> PrunedModel:
    torch.manual_seed(0)
    return PrunedModel.from_module(planted(nets.Residual()), torch.randn(1, 3, 16, 16))


def by_family(net: PrunedModel, scores: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    found, start = {}, 0
    for family in net.channels.families:
        found[family.name] = scores[start : start + family.width]
        start += family.width
    assert start == len(scores)
    return found


@pytest.mark.parametrize("name", ["l1", "ln_norm"])
def test_a_dead_channel_scores_lowest_and_a_strong_one_highest(plain: PrunedModel, name: str) -> None:
    scores = criterion(name).score(plain, IMAGES)
    assert scores.shape == (16,) and scores.dtype == np.float64 and np.isfinite(scores).all()
    own = by_family(plain, scores)["a.0.weight"]
    assert (own.argmin(), own.argmax()) == (DEAD, STRONG)
    assert own[DEAD] < 0.1 * np.delete(own, DEAD).min()
    assert own[STRONG] > 2 * np.delete(own, STRONG).max()


@pytest.mark.parametrize("name", ["l1", "ln_norm"])
def test_coupled_channels_get_one_score(residual: PrunedModel, name: str) -> None:
    """The residual ties `a` to `b`: eight units, each scored over both layers."""
    assert len(residual.channels.families) == 1
    scores = criterion(name).score(residual, IMAGES)
    assert scores.shape == (8,)
    if name == "l1":
        layers = [residual.module.get_parameter(n).detach().abs() for n in ("a.0.weight", "b.0.weight")]
        parts = [w.double().mean((1, 2, 3)) for w in layers]
        wanted = np.sum([(p / p.mean()).numpy() for p in parts], axis=0)
        np.testing.assert_allclose(scores, wanted, rtol=1e-6)
    assert scores.argmax() == STRONG


def test_the_ln_norm_of_a_net_by_hand(plain: PrunedModel) -> None:
    """Three weighted layers: n = 1 for a, 2 for b, infinity for the head, which has no units."""
    module = plain.module
    a, b = module.get_submodule("a"), module.get_submodule("b")
    with torch.no_grad():
        first = a(torch.from_numpy(IMAGES))
        second = b(first)
    maps = [first.double().abs().mean((2, 3)), second.double().square().mean((2, 3)).sqrt()]
    wanted = np.concatenate([(m.mean(0) / m.mean(0).mean()).numpy() for m in maps])
    np.testing.assert_allclose(LnNorm().score(plain, IMAGES), wanted, rtol=1e-4)


def test_scores_do_not_depend_on_how_images_are_ordered_or_repeated(plain: PrunedModel) -> None:
    scores = LnNorm().score(plain, IMAGES)
    np.testing.assert_allclose(LnNorm().score(plain, IMAGES[::-1]), scores, rtol=1e-9)
    np.testing.assert_allclose(LnNorm().score(plain, np.concatenate([IMAGES, IMAGES])), scores, rtol=1e-9)


def test_a_layers_scale_does_not_favour_it(plain: PrunedModel) -> None:
    for name in ("l1", "ln_norm"):
        for own in by_family(plain, criterion(name).score(plain, IMAGES)).values():
            assert own.mean() == pytest.approx(1.0)


def test_cut_channels_score_zero(plain: PrunedModel) -> None:
    net = PrunedModel(planted(nets.Plain()), torch.randn(1, 3, 16, 16), plain.channels)
    gone = [family.units[i].label for family in net.channels.families for i in (0, 3)]
    net.apply_cut(gone)
    for name in ("l1", "ln_norm"):
        scores = criterion(name).score(net, IMAGES)
        cut = np.isin(net.channels.unit_labels, gone)
        assert np.all(scores[cut] == 0.0) and np.all(scores[~cut] > 0.0)


def test_feature_maps_are_those_behind_the_non_linearity(plain: PrunedModel) -> None:
    maps = find_feature_maps(plain.channels)
    assert [(m.depth, m.depths, len(m.ids)) for m in maps] == [(0, 3, 8), (1, 3, 8), (2, 3, 2)]
    seen = list(run_feature_maps(plain.graph, maps, IMAGES))
    assert len(seen) == len(IMAGES)
    with torch.no_grad():
        wanted = plain.module.get_submodule("a")(torch.from_numpy(IMAGES))
    np.testing.assert_allclose(np.stack([s[0] for s in seen]), wanted[:, :, None].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", [nn.SiLU, nn.ELU, nn.Hardswish, nn.GELU])
def test_a_non_linearity_of_several_operators_is_followed_to_its_end(activation: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = nets.randomized(nn.Sequential(nets.unit(3, 8, activation), nn.Conv2d(8, 2, 1)))
    model = PrunedModel.from_module(net, torch.randn(1, 3, 16, 16))
    maps = find_feature_maps(model.channels)
    (first, _), *_ = run_feature_maps(model.graph, maps, IMAGES)
    with torch.no_grad():
        wanted = model.module.get_submodule("0")(torch.from_numpy(IMAGES[:1]))
    np.testing.assert_allclose(first[:, 0], wanted[0].numpy(), rtol=1e-4, atol=1e-5)


class GatedElsewhere(nn.Module):
    """x * sigmoid(x) whose sigmoid is read again: no non-linearity that channels keep to themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        gate = y.sigmoid()
        return self.head(y * gate + gate)


def test_a_gate_that_is_read_elsewhere_is_no_non_linearity() -> None:
    torch.manual_seed(0)
    model = PrunedModel.from_module(GatedElsewhere(), torch.randn(1, 3, 16, 16))
    (first, _), *_ = run_feature_maps(model.graph, find_feature_maps(model.channels), IMAGES)
    with torch.no_grad():
        wanted = model.module.get_submodule("a")(torch.from_numpy(IMAGES[:1]))
    np.testing.assert_allclose(first[:, 0], wanted[0].numpy(), rtol=1e-4, atol=1e-5)


class OnePosition(nn.Module):
    """Positions are merged with images, as in front of an attention layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).permute(0, 2, 3, 1).reshape(-1, 8)
        return self.head(self.b(y).relu())


@pytest.mark.parametrize("net", [nets.Plain(), OnePosition()])
def test_a_graph_with_a_batch_of_its_own_scores_the_same(net: nn.Module) -> None:
    torch.manual_seed(0)
    net = nets.randomized(net)
    free = PrunedModel.from_module(net, torch.randn(1, 3, 16, 16))
    maps = find_feature_maps(free.channels)
    wanted = list(run_feature_maps(free.graph, maps, IMAGES))
    fixed = ir.to_proto(free.graph)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    del fixed.graph.value_info[:]
    seen = list(run_feature_maps(ir.from_proto(fixed), maps, IMAGES))
    assert len(seen) == len(wanted) == 3
    for one, other in zip(seen, wanted):
        for a, b in zip(one, other):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("net", [nets.Depthwise(2), nets.Flat(), nets.ChannelsLast(), nets.Upsampled("transpose")])
def test_every_kind_of_layer_is_scored(net: nn.Module) -> None:
    torch.manual_seed(0)
    model = PrunedModel.from_module(nets.randomized(net), torch.randn(1, 3, 16, 16))
    for name in ("l1", "ln_norm"):
        scores = criterion(name).score(model, IMAGES)
        assert len(scores) == sum(f.width for f in model.channels.families)
        assert not np.isnan(scores).any() and (scores >= 0).all()
    assert np.isfinite(criterion("l1").score(model, IMAGES)).all()


def test_a_net_of_signals_is_scored() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 6, 3), nn.ReLU(), nn.Conv1d(6, 2, 1))
    model = PrunedModel.from_module(net, torch.randn(1, 3, 16))
    scores = criterion("ln_norm").score(model, IMAGES[:, :, 0])
    assert len(scores) == 14 and np.isfinite(scores).all() and (scores >= 0).all()


def test_a_layer_of_one_output_is_passed_over() -> None:
    net = nn.Sequential(nets.unit(3, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1))
    model = PrunedModel.from_module(nets.randomized(net), torch.randn(1, 3, 16, 16))
    assert np.isfinite(criterion("ln_norm").score(model, IMAGES)).all()


def test_channels_that_come_last_are_told_from_positions() -> None:
    """A linear layer on (N, H, W, C): its feature map has the channels on its last axis."""
    torch.manual_seed(0)
    model = PrunedModel.from_module(nets.randomized(nets.ChannelsLast()), torch.randn(1, 3, 16, 16))
    maps = find_feature_maps(model.channels)
    last = next(m for m in maps if m.axis == 3)
    (arrays, *_) = run_feature_maps(model.graph, maps, IMAGES)
    seen = arrays[maps.index(last)]
    assert seen.shape == (len(last.ids), 1, 16, 16)
    sizes = {m.axis: a.shape for m, a in zip(maps, arrays)}
    assert set(sizes) == {1, 3}


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_the_mean_over_units_counts_what_was_seen(plain: PrunedModel, data: st.DataObject) -> None:
    labels = plain.channels.unit_labels.tolist()
    foreign = max(labels) + 1
    rows = data.draw(
        st.lists(st.lists(st.tuples(st.sampled_from([*labels, foreign]), st.floats(0, 10)), max_size=6), max_size=4)
    )
    observed = [(np.array([r[0] for r in row], np.int64), np.array([r[1] for r in row], np.float64)) for row in rows]
    seen = Pooling(normalisation="none", reduction="mean").over_units(plain.channels, observed)
    for label, score in zip(labels, seen):
        own = [value for row in rows for key, value in row if key == label]
        assert score == (pytest.approx(sum(own) / len(own)) if own else math.inf)


def test_an_unknown_criterion() -> None:
    with pytest.raises(ConfigError, match="criterion 'l3' is unknown") as caught:
        criterion("l3")
    assert "l1, l2, ln_norm" in caught.value.hint
