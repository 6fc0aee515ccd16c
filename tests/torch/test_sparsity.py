"""Which single weights go: exact counts, the planted threshold, two of every four."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeslim.errors import ConfigError, TrainingError
from edgeslim.trainer.sparsity import (
    apply_pattern,
    find_kernels,
    lamp_pattern,
    magnitude_pattern,
    threshold_pattern,
    two_of_four_pattern,
)
from edgeslim.trainer.sparsity.lamp import lamp_scores

from . import nets
from .test_compact import Tied

LEVELS = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 1e-40]


def tiny(*values: list[float]) -> nn.Sequential:
    """Linear layers of one output each, with these weights and no bias."""
    net = nn.Sequential(*(nn.Linear(len(v), 1, bias=False) for v in values))
    with torch.no_grad():
        for layer, own in zip(net, values):
            layer.weight.copy_(torch.tensor([own]))
    return net


def weights(net: nn.Module) -> Tensor:
    return torch.cat([k.weight.flatten() for k in find_kernels(net).found])


values = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(st.lists(values, min_size=1, max_size=4), st.floats(0, 1))
def test_exactly_so_many_weights_go_and_they_are_the_smallest(own: list[list[float]], fraction: float) -> None:
    net = tiny(*own)
    before = copy.deepcopy(net.state_dict())
    pattern = magnitude_pattern(net, fraction)
    total = sum(map(len, own))
    wanted = min(round(fraction * total), total - len(own))
    assert (pattern.weights, pattern.pruned) == (total, wanted)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(bool(keep.any()) for keep in pattern.keep.values())
    keep = torch.cat([k.flatten() for k in pattern.keep.values()])
    largest = torch.cat([k.weight.flatten().abs() == k.weight.abs().max() for k in find_kernels(net).found])
    if wanted and bool((keep & ~largest).any()):  # what stays is no smaller than what goes
        assert weights(net)[keep & ~largest].abs().min() >= weights(net)[~keep].abs().max()
    again = magnitude_pattern(copy.deepcopy(net), fraction)
    assert all(torch.equal(again.keep[name], keep) for name, keep in pattern.keep.items())
    apply_pattern(net, pattern)
    assert int((weights(net) == 0).sum()) >= wanted


@settings(max_examples=100, deadline=None)
@given(st.lists(values, min_size=1, max_size=4), st.floats(0, 1))
def test_per_layer_every_kernel_loses_its_share(own: list[list[float]], fraction: float) -> None:
    pattern = magnitude_pattern(tiny(*own), fraction, per_layer=True)
    for keep, given_ in zip(pattern.keep.values(), own):
        assert int((~keep).sum()) == min(round(fraction * len(given_)), len(given_) - 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(values, min_size=1, max_size=4), st.floats(0, 1), st.sampled_from([1e-20, 0.01, 3.0, 1e20]))
def test_lamp_prunes_as_many_and_does_not_ask_for_the_size_of_a_layer(
    own: list[list[float]], fraction: float, factor: float
) -> None:
    pattern = lamp_pattern(tiny(*own), fraction)
    total = sum(map(len, own))
    assert (pattern.weights, pattern.pruned) == (total, min(round(fraction * total), total - len(own)))
    assert all(bool(keep.any()) for keep in pattern.keep.values())
    net = tiny(*own)
    for keep, kernel in zip(pattern.keep.values(), find_kernels(net).found):  # within a kernel as by magnitude
        if bool((~keep).any()):
            assert kernel.weight[keep].abs().min() >= kernel.weight[~keep].abs().max()
    with torch.no_grad():
        net.get_parameter("0.weight").mul_(factor)
    if all(v == 0 or abs(v) > 1e-9 for v in own[0]):  # no float32 becomes 0 or infinite
        again = lamp_pattern(net, fraction)
        assert all(torch.equal(again.keep[name], keep) for name, keep in pattern.keep.items())


def test_lamp_by_hand() -> None:
    """4 : 16 / (16 + 9), 3 : 9 / 25 = 0.36; of the other kernel 1 / (1 + 4) = 0.2 and 4 / 4 = 1."""
    net = tiny([4, 3], [0.01, 0.02], [5, 0])
    assert lamp_scores(find_kernels(net).found).tolist() == pytest.approx([1.0, 0.36, 0.2, 1.0, 1.0, 0.0])
    assert [k.flatten().tolist() for k in lamp_pattern(net, 2 / 6).keep.values()] == [
        [True, True], [False, True], [True, False],
    ]  # fmt: skip
    assert [k.flatten().tolist() for k in magnitude_pattern(net, 2 / 6).keep.values()] == [
        [True, True], [False, True], [True, False],
    ]  # fmt: skip
    assert [k.flatten().tolist() for k in lamp_pattern(net, 3 / 6).keep.values()] == [
        [True, False], [False, True], [True, False],
    ]  # fmt: skip


def test_equal_magnitudes_go_in_the_order_of_kernels_and_elements() -> None:
    pattern = magnitude_pattern(tiny([1, -1, 1, 2], [-1, 1, 2]), 3 / 7)
    assert [k.flatten().tolist() for k in pattern.keep.values()] == [[False, False, False, True], [True] * 3]
    assert not pattern.notes


def test_a_layer_keeps_one_weight_and_a_note_says_so() -> None:
    pattern = magnitude_pattern(tiny([0.1, 0.2, 0.3], [5, 6, 7, 8, 9]), 0.5)
    assert [k.flatten().tolist() for k in pattern.keep.values()] == [
        [False, False, True],
        [False, False, True, True, True],
    ]
    assert pattern.notes == ("0.weight would have lost all its weights: the largest stays",)
    everything = magnitude_pattern(tiny([1, 2], [3, 4]), 1.0)
    assert everything.pruned == 2
    assert "4 weights were to go, 2 can" in everything.notes


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan, True, "0.5", None])
def test_a_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(ConfigError, match="must lie between 0 and 1"):
        magnitude_pattern(nets.Plain(), fraction)


def test_kernels_and_what_is_left_out() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.PReLU(4),
        nn.ConvTranspose2d(4, 4, 2),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1)),
        nn.Linear(4, 2),
    )
    net[5].weight.requires_grad_(False)
    kernels = find_kernels(net)
    assert [k.name for k in kernels.found] == ["0.weight", "3.weight"]
    assert kernels.weights == 4 * 3 * 9 + 4 * 4 * 4
    assert kernels.notes == (
        "4.weight stays whole: it is computed from other parameters",
        "5.weight stays whole: it is frozen",
    )
    pattern = magnitude_pattern(net, 0.5)
    assert pattern.pruned == round(0.5 * kernels.weights)
    assert pattern.notes == kernels.notes


def test_a_shared_kernel_counts_once() -> None:
    net = Tied()
    names = [k.name for k in find_kernels(net).found]
    assert "b.weight" in names and "c.weight" not in names
    pattern = magnitude_pattern(net, 0.9)
    apply_pattern(net, pattern)
    assert torch.equal(net.c.weight, net.b.weight)
    assert torch.equal(net.c.weight == 0, ~pattern.keep["b.weight"])


def test_a_net_without_kernels() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    for pattern in (
        magnitude_pattern(net, 0.5),
        two_of_four_pattern(net),
        threshold_pattern(net, lambda m: 1.0, 0).pattern,
    ):
        assert pattern.keep == {} and pattern.pruned == 0
        assert pattern.notes == ("there is no kernel to prune",)
        apply_pattern(net, pattern)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    with pytest.raises(ConfigError, match=r"0\.weight has weights that are not finite"):
        magnitude_pattern(tiny([1.0, value]), 0.5)


def test_the_pattern_of_another_net() -> None:
    pattern = magnitude_pattern(tiny([1, 2, 3]), 0.5)
    for other, seen in ((tiny([1, 2]), r"the net has \(1, 2\)"), (nn.Sequential(nn.ReLU()), "lacks it")):
        with pytest.raises(ConfigError, match=seen):
            apply_pattern(other, pattern)


# ---------------------------------------------------------------- threshold


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), st.integers(2, 40))
def test_bisection_finds_the_planted_threshold(planted: int, count: int) -> None:
    """The loss leaves the bound as soon as a weight above the planted threshold goes."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count)) + 1
    net = tiny(order.float().tolist(), [100.0])

    def loss(module: nn.Module) -> float:
        gone = [w for w in range(1, count + 1) if w not in module[0].weight.detach().abs().flatten().tolist()]
        return 1.0 if not gone or max(gone) <= planted else 2.0

    found = threshold_pattern(net, loss, 0.5)
    wanted = min(planted, count - 1)
    assert found.pattern.pruned == wanted
    assert found.threshold == (float(wanted) if wanted else None)
    assert len(found.trials) <= math.ceil(math.log2(count)) + 2
    assert torch.equal(net[0].weight.flatten(), order.float())


def test_what_is_returned_was_measured_and_lies_within_the_bound() -> None:
    """A loss that goes up and down with the threshold."""
    net = tiny([float(i + 1) for i in range(64)])

    def loss(module: nn.Module) -> float:
        pruned = int((module[0].weight == 0).sum())
        return 1.0 + 0.3 * ((pruned * 7919) % 5 > 2)

    found = threshold_pattern(net, loss, 0.1)
    pruned = copy.deepcopy(net)
    apply_pattern(pruned, found.pattern)
    assert loss(pruned) <= found.limit
    kept = [t for t in found.trials if t.loss <= found.limit]
    assert found.threshold == max((t.threshold for t in kept), default=None)


def test_delta_so_small_that_nothing_goes_and_so_large_that_everything_does() -> None:
    net = tiny([1.0, 2.0, 3.0], [4.0, 5.0])
    total = float(weights(net).sum())

    def loss(module: nn.Module) -> float:
        return 1.0 + total - float(weights(module).sum())

    nothing = threshold_pattern(net, loss, 0.0)
    assert (nothing.pattern.pruned, nothing.threshold) == (0, None)
    assert nothing.pattern.notes == ("no threshold keeps the loss within 1: nothing was pruned",)
    everything = threshold_pattern(net, loss, 1e9)
    assert (everything.pattern.pruned, everything.threshold) == (3, 4.0)
    assert len(everything.trials) == 1
    assert "only the largest weight stays" in everything.pattern.notes[0]
    some = threshold_pattern(net, loss, 3.0)
    assert (some.pattern.pruned, some.threshold, some.limit, some.unpruned_loss) == (2, 2.0, 4.0, 1.0)


def test_a_loss_that_is_not_a_number_is_outside() -> None:
    net = tiny([1.0, 2.0, 3.0])
    found = threshold_pattern(net, lambda m: math.nan if bool((m[0].weight == 0).any()) else 1.0, 10.0)
    assert found.pattern.pruned == 0
    for start in (math.nan, math.inf, -1.0):
        with pytest.raises(TrainingError, match="the loss of the unpruned net is"):
            threshold_pattern(net, lambda m, start=start: start, 0.1)  # type: ignore[misc]
    for delta in (-0.1, math.inf, math.nan, True):
        with pytest.raises(ConfigError, match="must be at least 0"):
            threshold_pattern(net, lambda m: 1.0, delta)


# ---------------------------------------------------------------- two of four


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.sampled_from([(), (1,), (3, 3), (1, 5)]), st.integers(0, 99))
def test_two_of_every_four_input_channels(out: int, fours: int, taps: tuple[int, ...], seed: int) -> None:
    width = 4 * fours
    layer: nn.Module = nn.Linear(width, out)
    if taps:
        layer = nn.Conv1d(width, out, taps) if len(taps) == 1 else nn.Conv2d(width, out, taps)
    with torch.no_grad():  # few values, so that many are equal
        layer.weight.copy_(torch.randint(-2, 3, layer.weight.shape, generator=torch.Generator().manual_seed(seed)))
    before = layer.weight.detach().clone()
    pattern = two_of_four_pattern(layer)
    assert pattern.pruned * 2 == pattern.weights == before.numel() and not pattern.notes
    apply_pattern(layer, pattern)
    for o in range(out):
        for j in range(fours):
            group, own = (t[o, 4 * j : 4 * j + 4].reshape(4, -1).detach() for t in (before, layer.weight))
            assert bool(((own != 0).sum(0) <= 2).all())
            assert torch.equal(own.abs().sum(0), group.abs().topk(2, dim=0).values.sum(0))


def test_layers_that_do_not_fit_stay_whole() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 8, 2)
    )
    pattern = two_of_four_pattern(net)
    assert list(pattern.keep) == ["1.weight"]
    assert pattern.notes == (
        "0.weight stays whole: 3 input channels do not divide by 4",
        "2.weight stays whole: 1 input channels do not divide by 4",
        "3.weight stays whole: a transposed convolution sums along another axis",
    )
