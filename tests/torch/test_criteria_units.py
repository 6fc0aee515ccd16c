"""From scores of channels to scores of units: normalisation, reduction, ranking."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgeslim.errors import ConfigError
from edgeslim.trainer.criteria import Pooling
from edgeslim.trainer.criteria.units import normalised, ranked, reduced
from edgeslim.trainer.pruned import PrunedModel

from . import nets

SCORES = hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(0.0, 1e3))


@pytest.fixture(scope="module")
def net() -> PrunedModel:
    torch.manual_seed(0)
    return PrunedModel.from_module(nets.Plain().eval(), torch.randn(1, 3, 16, 16))


@given(SCORES)
def test_each_normalisation_is_what_it_says(scores: NDArray[np.float64]) -> None:
    np.testing.assert_array_equal(normalised(scores, "none"), scores)
    if scores.max() > 1e-3:
        assert normalised(scores, "mean").mean() == pytest.approx(1.0)
        assert normalised(scores, "max").max() == pytest.approx(1.0)
        assert np.square(normalised(scores, "l2")).sum() == pytest.approx(1.0)
    if np.ptp(scores) > 1e-3:
        standard = normalised(scores, "standard")
        assert standard.mean() == pytest.approx(0.0, abs=1e-6) and standard.std() == pytest.approx(1.0)
    assert not normalised(np.zeros(3), "mean").any() and not normalised(np.zeros(3), "standard").any()


@given(SCORES, st.sampled_from(["mean", "max", "l2", "standard"]), st.floats(0.5, 100.0))
def test_normalised_scores_do_not_know_the_layers_scale(scores: NDArray[np.float64], law: str, factor: float) -> None:
    if np.ptp(scores) < 1e-6:
        return
    once, scaled = (normalised(s, law) for s in (scores, factor * scores))  # type: ignore[arg-type]
    np.testing.assert_allclose(scaled, once, rtol=1e-6, atol=1e-9)


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-5, 5)), max_size=12))
def test_each_reduction_is_what_it_says(pairs: list[tuple[int, float]]) -> None:
    units, values = np.array([u for u, _ in pairs], np.int64), np.array([v for _, v in pairs], np.float64)
    laws = {"mean": np.mean, "sum": np.sum, "max": np.max, "first": lambda own: own[0]}
    for law, wanted in laws.items():
        pooled = reduced(units, values, 5, law)  # type: ignore[arg-type]
        for unit in range(5):
            own = values[units == unit]
            assert pooled[unit] == (pytest.approx(float(wanted(own))) if len(own) else math.inf)  # type: ignore[operator]


@settings(max_examples=30)
@given(hnp.arrays(np.float64, 16, elements=st.sampled_from([0.0, 0.5, 1.0, 2.0, math.inf])))
def test_local_ranks_keep_the_order_within_a_family(net: PrunedModel, scores: NDArray[np.float64]) -> None:
    found = ranked(net.channels, scores)
    for own, ranks in zip(np.split(scores, 2), np.split(found, 2)):
        assert np.all((ranks > 0) & ((ranks <= 1) | np.isposinf(ranks)))
        for i, j in itertools.combinations(range(8), 2):
            assert np.sign(own[i] - own[j] if own[i] != own[j] else 0) == np.sign(
                ranks[i] - ranks[j] if ranks[i] != ranks[j] else 0
            )


def test_local_ranks_make_families_equal(net: PrunedModel) -> None:
    scores = np.concatenate([np.arange(8.0), 1e6 * np.arange(8.0)])
    found = ranked(net.channels, scores)
    np.testing.assert_allclose(found, np.tile(np.arange(1, 9) / 8, 2))


def test_pooling_from_maps_to_units(net: PrunedModel) -> None:
    labels = net.channels.unit_labels
    observed = [(labels[:2], np.array([1.0, 3.0])), (labels[[1, 0]], np.array([10.0, 30.0]))]
    wanted = {
        Pooling(): [0.5 + 1.5, 1.5 + 0.5],
        Pooling(reduction="mean"): [(0.5 + 1.5) / 2, (1.5 + 0.5) / 2],
        Pooling(normalisation="none", reduction="sum"): [31.0, 13.0],
        Pooling(normalisation="none", reduction="max"): [30.0, 10.0],
        Pooling(normalisation="none", reduction="first"): [1.0, 3.0],
        Pooling(normalisation="none", reduction="sum", ranking="local"): [2 / 8, 1 / 8],
    }
    for pool, values in wanted.items():
        found = pool.over_units(net.channels, observed)
        assert found[:2].tolist() == pytest.approx(values)
        assert np.isposinf(found[2:]).all()
    assert np.isposinf(Pooling().over_units(net.channels, [])).all()


@pytest.mark.parametrize("option", ["reduction", "normalisation", "ranking"])
def test_options_are_checked_at_birth(option: str) -> None:
    with pytest.raises(ConfigError, match=f"pooling: {option} is 'median'") as caught:
        Pooling(**{option: "median"})
    assert "choose one of" in caught.value.hint
