"""Filters without a weight leave, with the constants they spoke, and the net answers as before."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeslim.exporter.export import export
from edgeslim.runtime import load, read_bundle
from edgeslim.trainer.budget import WidthLimits
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.sparsity import dead, find_kernels
from edgeslim.trainer.sparsity.dead import cut_dead

from . import nets

EXAMPLE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
IMAGES = np.random.default_rng(3).standard_normal((2, 3, 16, 16), np.float32)
DEAD = [1, 4, 6]


class Biased(nn.Module):
    """No batch norm: a dead filter says what its bias says."""

    def __init__(self, padding: int = 0, bias: bool = True, kernel: int = 3) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, kernel, padding=padding, bias=bias)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(torch.relu(self.a(x)))))


class Behind(Biased):
    """A convolution without a bias whose batch norm takes the constant up."""

    def __init__(self, padding: int = 0) -> None:
        super().__init__(padding, bias=False)
        self.n = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.n(self.b(torch.relu(self.a(x))))))


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.hidden, self.head = nets.unit(3, 8), nn.Linear(8, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(self.a(x).mean((2, 3)))))


def loud(net: nn.Module, *layers: str, rows: list[int] = DEAD) -> nn.Module:
    """The net with zero filters in these layers, whose biases and shifts are all positive."""
    torch.manual_seed(0)
    net = nets.randomized(net)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)) and module.bias is not None:
                module.bias.uniform_(0.5, 1.5)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.0)
        for name in layers:
            net.get_parameter(f"{name}.weight")[rows] = 0
    return net


@pytest.mark.parametrize(
    ("build", "layer", "left"),
    [
        (lambda: Biased(), "a", 5),
        (lambda: Biased(padding=1), "a", 6),  # one carries the others
        (lambda: Biased(kernel=1, bias=False), "b", 5),
        (lambda: Behind(), "a", 5),
        (lambda: Behind(padding=1), "a", 6),
        (nets.Plain, "a.0", 6),
        (nets.Plain, "b.0", 5),
        (nets.Residual, "b.0", 8),  # the sum with a living channel lives
        (nets.Dense, "a.0", 5),
        (nets.Slope, "a", 8),  # the trace reshapes the slope, which counts as computed
        (Classifier, "a.0", 5),
        (Classifier, "hidden", 9),
        (lambda: nets.Upsampled("transpose"), "b.0", 6),
    ],
)
def test_the_net_answers_as_before(build: Callable[[], nn.Module], layer: str, left: int, tmp_path: Path) -> None:
    net = build()
    width = net.get_parameter(f"{layer}.weight").shape[0]
    net = loud(net, layer, rows=[row for row in DEAD if row < width])
    pruned = PrunedModel.from_module(net, EXAMPLE)
    found = cut_dead(pruned, IMAGES)
    small = pruned.compact()
    assert small.get_parameter(f"{layer}.weight").shape[0] == left
    with torch.no_grad():
        for images in (torch.from_numpy(IMAGES), torch.randn(2, 3, 24, 20)):
            wanted = net.eval()(images)
            for form in (pruned.module, small):
                assert torch.allclose(form.eval()(images), wanted, atol=1e-4, rtol=1e-4)
    if not found.cut:
        return
    assert found.notes[0] == f"dead units cut, their constants folded into what reads them: {len(found.cut)}"
    (layer_coverage,) = [c for c in pruned.coverage if c.width_after == left and c.width_after < c.width_before][:1]
    assert layer_coverage.width_before > left
    path = export(pruned, tmp_path / "net.bundle")
    manifest = read_bundle(path).manifest
    assert manifest.certificate.passed
    assert any(c.width_after < c.width_before for c in manifest.coverage)


def test_where_there_is_no_home_for_the_constant_the_unit_stays() -> None:
    """A convolution without bias or batch norm has no place for what the dead channels said."""
    net = loud(Biased(bias=False), "a")
    pruned = PrunedModel.from_module(net, EXAMPLE)
    before = copy.deepcopy(pruned.module.state_dict())
    found = cut_dead(pruned, IMAGES)
    assert found == dead.DeadCut(
        cut=frozenset(), notes=("dead units that stay, for a layer without a bias reads their constant: 3",)
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in pruned.module.state_dict().items())


def test_widths_that_are_no_use_are_not_cut_down_to() -> None:
    net = loud(nets.Plain(), "b.0", rows=[0, 1, 2, 5, 7])
    pruned = PrunedModel.from_module(net, EXAMPLE)
    found = cut_dead(pruned, IMAGES, WidthLimits(multiple=4, minimum=4))
    assert pruned.compact().get_parameter("b.0.weight").shape[0] == 4
    assert found.notes == (
        "dead units cut, their constants folded into what reads them: 4",
        "dead units that stay, for the width without them is no use on the device: 1",
    )


def test_a_net_without_dead_filters_is_not_touched() -> None:
    net = loud(nets.Plain())
    pruned = PrunedModel.from_module(net, EXAMPLE)
    before = copy.deepcopy(pruned.module.state_dict())
    assert cut_dead(pruned, IMAGES) == dead.DeadCut(cut=frozenset(), notes=())
    assert all(torch.equal(before[name], tensor) for name, tensor in pruned.module.state_dict().items())


def test_a_layer_all_of_whose_filters_died_keeps_one() -> None:
    net = loud(Biased(), "a", rows=list(range(8)))
    pruned = PrunedModel.from_module(net, EXAMPLE)
    cut_dead(pruned, IMAGES)
    assert pruned.compact().get_parameter("a.weight").shape[0] == 1
    with torch.no_grad():
        assert torch.allclose(pruned.module(EXAMPLE), net(EXAMPLE), atol=1e-5)


def test_a_unit_that_is_some_tensors_last_is_not_said_to_stay_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "spare_one", lambda channels, cut, scores: frozenset(cut) - {max(cut)})
    pruned = PrunedModel.from_module(loud(nets.Plain(), "b.0"), EXAMPLE)
    found = cut_dead(pruned, IMAGES)
    assert found.notes[-1] == "dead units that stay, for without them a tensor would have no channel: 1"


def test_what_was_cut_already_stays_cut() -> None:
    net = loud(nets.Plain(), "b.0")
    pruned = PrunedModel.from_module(net, EXAMPLE)
    first = pruned.channels.family("b.0.weight").units
    pruned.apply_cut([first[0].label, first[1].label])
    before = copy.deepcopy(pruned.module)
    cut_dead(pruned, IMAGES)
    assert pruned.compact().get_parameter("b.0.weight").shape[0] == 4
    with torch.no_grad():
        assert torch.allclose(pruned.module(EXAMPLE), before(EXAMPLE), atol=1e-5)


def test_a_wrong_fold_is_noticed_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    net = loud(Behind(), "a")
    pruned = PrunedModel.from_module(net, EXAMPLE)
    right = dead._changed
    monkeypatch.setattr(dead, "_changed", lambda *a: {n: 1.01 * v + 0.01 for n, v in right(*a).items()})
    before = copy.deepcopy(pruned.module.state_dict())
    found = cut_dead(pruned, IMAGES)
    assert found.cut == frozenset() and not pruned.cut
    assert found.notes == ("dead units that stay, for the net without them does not compute the same: 3",)
    assert all(torch.equal(before[name], tensor) for name, tensor in pruned.module.state_dict().items())


def test_the_bundle_answers_like_the_net(tmp_path: Path) -> None:
    net = loud(Behind(padding=1), "a")
    pruned = PrunedModel.from_module(net, EXAMPLE)
    cut_dead(pruned, IMAGES)
    path = export(pruned, tmp_path / "net.bundle")
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    with load(path) as session, torch.no_grad():
        (seen,) = session.run(frame).values()
        wanted = net(torch.from_numpy(frame.transpose(2, 0, 1)[None].astype(np.float32) / 255))[0]
    assert np.allclose(seen, wanted.numpy(), atol=1e-4)


NETS: dict[str, Callable[[], nn.Module]] = {
    **{name: getattr(nets, name) for name in (
        "Chunk", "ChannelsLast", "Dense", "Divided", "Flat", "Gate", "Grouped", "Grouping", "JoinedOnHeight",
        "OptionA", "Plain", "Positions", "Residual", "Shared", "Shuffle", "SigmoidBetween", "Split", "ZeroGamma",
    )},
    "Depthwise": lambda: nets.Depthwise(2),
    "Upsampled": lambda: nets.Upsampled("transpose"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_dead_filters_anywhere(name: str) -> None:
    """Random filters of random layers, also all of a layer, with biases and shifts of both signs."""
    images, traced = torch.from_numpy(IMAGES), PrunedModel.from_module(nets.randomized(NETS[name]()), EXAMPLE)
    for seed in range(4):
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        net = nets.randomized(NETS[name](), seed)
        kernels = find_kernels(net).found
        with torch.no_grad():
            for parameter in (p for n, p in net.named_parameters() if n.endswith("bias")):
                parameter.uniform_(-1, 1)
            for index in rng.permutation(len(kernels))[: rng.integers(1, 4)]:
                width = len(kernels[index].weight)
                rows = rng.permutation(width)[: rng.choice([1, width // 2, width - 1, width])]
                net.get_parameter(kernels[index].name)[rows.tolist()] = 0
        pruned = PrunedModel(copy.deepcopy(net), EXAMPLE, traced.channels)
        cut_dead(pruned, IMAGES)
        with torch.no_grad():
            assert torch.allclose(pruned.module.eval()(images), net(images), atol=1e-4, rtol=1e-3), seed
