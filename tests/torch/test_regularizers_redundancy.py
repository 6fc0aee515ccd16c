"""Redundant filters: found by the angle between them, pushed apart or pulled together, the lesser one weakened."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgeslim.errors import ConfigError
from edgeslim.trainer.regularizers import Kernel, Redundancy, View
from edgeslim.trainer.regularizers.redundancy import cosines

from .views import pull, random_kernels, seen


def planted() -> Tensor:
    """Five filters; 3 is -0.5 times 1, all others are orthogonal."""
    filters = torch.eye(5, 18, dtype=torch.float64)
    filters[3] = -0.5 * filters[1]
    return filters.view(5, 2, 3, 3)


def lesser(rule: Redundancy, filters: Tensor) -> Tensor:
    return rule.lesser(filters, (cosines(filters) > rule.tau).fill_diagonal_(False))


def test_twins_are_found_whatever_their_size_and_sign() -> None:
    filters = planted()
    found = (cosines(filters).triu(1) > 0.9).nonzero().tolist()
    assert found == [[1, 3]]
    assert lesser(Redundancy(), filters).tolist() == [False, False, False, True, False]
    filters[3] *= 10
    assert lesser(Redundancy(), filters).tolist() == [False, True, False, False, False]
    filters[3] = filters[1]  # of equals the later one
    assert lesser(Redundancy(), filters).tolist() == [False, False, False, True, False]


def test_the_lesser_by_its_gradient_count() -> None:
    flat, spiky = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)
    spiky[0, 0, 1, 1] = 0.4
    filters = torch.cat([spiky, 2 * flat])
    assert lesser(Redundancy(rank="gradient_count"), filters).tolist() == [False, True]
    assert lesser(Redundancy(rank="norm"), filters).tolist() == [True, False]


def test_a_filter_of_nothing_is_nobodys_twin() -> None:
    filters = torch.zeros(3, 2, 1, 1, requires_grad=True)
    assert not cosines(filters).any()
    assert float(Redundancy().penalty(seen([filters], 1.0)).detach()) == 0.0
    twins = torch.cat([filters.detach(), torch.ones(2, 2, 1, 1)]).requires_grad_()
    assert not pull(Redundancy(), seen([twins], 1.0), twins)[:3].any()


def test_known_values() -> None:
    c = 0.9
    filters = torch.tensor([[1.0, 0.0], [c, (1 - c * c) ** 0.5], [0.0, -1.0]], dtype=torch.float64)
    other = (1 - c * c) ** 0.5  # between the second and third, below tau
    assert other < 0.8
    far = {"repel": (c - 0.8) ** 2, "attract": (1 - c) ** 2}
    for sign, wanted in far.items():
        rule = Redundancy(weight=1.0, sign=sign)  # type: ignore[arg-type]
        assert float(rule.penalty(seen([filters]))) == pytest.approx(wanted / 3)
    rule = Redundancy(weight=1.0, sign="repel", pressure=2.0)
    lesser = 2**0.5 * 1.0 / 6  # sqrt(K) |W| / N of the second one: as long as the first, and later
    assert float(rule.penalty(seen([filters], 0.5))) == pytest.approx(far["repel"] / 3 + 0.5 * 2.0 * lesser)


@pytest.mark.parametrize("sign", ["repel", "attract"])
def test_a_step_against_the_gradient_turns_the_pair(sign: str) -> None:
    filters = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.3, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    rule = Redundancy(weight=1.0, sign=sign, pressure=0.0)  # type: ignore[arg-type]
    before = float(cosines(filters.detach())[0, 1])
    after = float(cosines(filters.detach() - 0.1 * pull(rule, seen([filters]), filters))[0, 1])
    assert (after < before) is (sign == "repel") and after != before


def test_only_the_lesser_of_a_pair_is_weakened_and_more_and_more() -> None:
    filters = planted().requires_grad_()
    pulls = [pull(Redundancy(pressure=1.0), seen([filters], share), filters) for share in (0.0, 0.5, 1.0)]
    radial = [(p * filters).detach().flatten(1).sum(1) for p in pulls]
    assert radial[0].abs().max() < 1e-12
    torch.testing.assert_close(2 * radial[1], radial[2])
    assert (radial[2] > 1e-6).tolist() == [False, False, False, True, False]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100.0), st.sampled_from(["repel", "attract"]))
def test_sizes_and_order_do_not_matter(seed: int, factor: float, sign: str) -> None:
    rule = Redundancy(weight=1.0, sign=sign, tau=0.2, pressure=0.0)  # type: ignore[arg-type]
    w = torch.randn(6, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    value = rule.penalty(seen([w]))
    sizes = torch.rand(6, 1, 1, 1, generator=torch.Generator().manual_seed(seed)) + 0.1
    torch.testing.assert_close(rule.penalty(seen([factor * sizes * w])), value)
    torch.testing.assert_close(rule.penalty(seen([w[[3, 1, 0, 5, 4, 2]]])), value)


def test_pairs_belong_to_one_group() -> None:
    """Filters 0 and 2 are equal and read different channels; 2 and 3 are parallel and read the same."""
    filters = torch.eye(4, 6, dtype=torch.float64).view(4, 2, 3)
    filters[2], filters[3] = filters[0], -0.5 * filters[0]
    rule = Redundancy(weight=1.0, sign="repel", pressure=1.0)
    seen = View(kernels=[Kernel(weight=filters, groups=2)], share=1.0)
    lesser = 6**0.5 * 0.5 / 24
    assert float(rule.penalty(seen)) == pytest.approx(0.2**2 / 2 + lesser)
    depthwise = torch.ones(5, 1, 3, 3, requires_grad=True)
    assert float(rule.penalty(View(kernels=[Kernel(weight=depthwise, groups=5)], share=1.0))) == 0.0


@pytest.mark.parametrize("sign", ["repel", "attract"])
def test_the_gradient_is_the_derivative(sign: str) -> None:
    rule = Redundancy(weight=1.0, sign=sign, tau=0.05)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda *given: rule.penalty(seen(given, 0.7)), random_kernels(3))


def test_layers_in_which_no_two_filters_can_differ_are_left_out() -> None:
    single, scalars = torch.randn(1, 3, 3, 3), torch.randn(4, 1, 1, 1)
    assert float(Redundancy().penalty(seen([single, scalars], 1.0))) == 0.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tau": 1.0}, "tau is 1.0; it must be a number from 0, below 1"),
        ({"tau": -0.1}, "tau is -0.1"),
        ({"sign": "both"}, "sign is 'both'"),
        ({"rank": "l1"}, "rank is 'l1'"),
        ({"pressure": float("nan")}, "pressure is nan"),
    ],
)
def test_options_are_checked_at_birth(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Redundancy(**options)  # type: ignore[arg-type]
