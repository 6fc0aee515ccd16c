"""The compact module: a smaller instance of the same class that computes what the masked net computes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeslim.errors import PlanError, UnsupportedGraphError
from edgeslim.exporter.export import runner_from_graph
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.exporter.plan import PruningPlan
from edgeslim.trainer.compact import compact_module, expand_state, hold_masks, mask_state, shrink_state
from edgeslim.trainer.models.mobilenetv3 import MobileNetV3LRASPP
from edgeslim.trainer.models.unet import UNet
from edgeslim.trainer.pruned import PrunedModel

from . import nets

EXAMPLE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(1))


class Tied(nn.Module):
    """Two layers, one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nets.unit(3, 8), nn.Conv2d(8, 8, 3, padding=1)
        self.c, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.c.weight = self.b.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.c(torch.relu(self.b(self.a(x))))))


class NarrowGroups(nn.Module):
    """A grouped convolution that half the channels leave with one input a group: it is no depthwise one then."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nets.unit(3, 8), nn.Conv2d(8, 16, 3, padding=1, groups=4), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(self.a(x))))


class Verdict(nets.Plain):
    """An answer of booleans."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) > 0


class HardSlice(nets.Plain):
    """Its forward names the middle: with fewer channels it runs, and computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.head(self.b(torch.cat([x[:, 4:], x[:, :4]], 1)))


CLASSES: dict[str, Callable[[], nn.Module]] = {
    "plain": nets.Plain,
    "unet": lambda: UNet(width=4, depth=1),
    "unet, resize": lambda: UNet(width=4, depth=1, upsample="resize"),
    "residual": nets.Residual,
    "depthwise": nets.Depthwise,
    "depthwise, multiplier 2": lambda: nets.Depthwise(2),
    "grouped": nets.Grouped,
    "squeeze-excitation": nets.Gate,
    "shared convolution": nets.Shared,
    "PReLU": nets.Slope,
    "transposed convolution": lambda: nets.Upsampled("transpose"),
    "linear": nets.ChannelsLast,
    "flatten to linear": nets.Flat,
    "learnt shift": lambda: nets.Shift(True),
    "tied": Tied,
    "narrow groups": NarrowGroups,
}
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "reshape": (nets.HardCoded, "HardCoded does not run with fewer channels: "),
    "slice": (HardSlice, "HardSlice: the compact module does not compute what the masked one does"),
}
EVERY = {**CLASSES, **{name: build for name, (build, _) in REFUSED.items()}}


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    return nets.randomized(EVERY[name]())


@functools.cache
def analysed(name: str) -> PrunedModel:
    """Traced once; tests take a fresh net with the same analysis."""
    return PrunedModel.from_module(built(name), EXAMPLE)


def pruned(name: str, seed: int = 0) -> PrunedModel:
    """The net with a random half of every family cut."""
    net = PrunedModel(built(name), EXAMPLE, analysed(name).channels)
    generator = np.random.default_rng(seed)
    net.apply_cut(
        family.units[i].label
        for family in net.channels.families
        for i in generator.permutation(family.width)[: family.width // 2]
    )
    assert net.cut
    return net


def images_of(name: str) -> Tensor:
    return IMAGES[..., :16] if name == "flatten to linear" else IMAGES


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


def identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- states ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_expanding_what_was_shrunk_gives_the_masked_net(name: str) -> None:
    plan, dense = pruned(name).plan, built(name).state_dict()
    before = copy.deepcopy(dense)
    masked, small = mask_state(dense, plan), shrink_state(dense, plan)
    assert identical(expand_state(small, dense, plan), masked)
    assert identical(expand_state(small, masked, plan), masked)
    assert identical(shrink_state(masked, plan), small)
    assert identical(mask_state(masked, plan), masked)
    assert identical(dense, before)
    for key, tensor in dense.items():
        np.testing.assert_array_equal(small[key].numpy(), plan.shrink(key, tensor.numpy()))
        np.testing.assert_array_equal(masked[key].numpy(), plan.mask(key, tensor.numpy()))
        assert small[key].data_ptr() != tensor.data_ptr() and masked[key].data_ptr() != tensor.data_ptr()


def test_expanding_trained_values_puts_each_where_it_came_from() -> None:
    plan, dense = pruned("unet").plan, built("unet").state_dict()
    small = {
        name: torch.randn(t.shape) if t.is_floating_point() else t for name, t in shrink_state(dense, plan).items()
    }
    full = expand_state(small, dense, plan)
    assert identical(shrink_state(full, plan), small)
    assert identical(mask_state(full, plan), full)


def test_masks_are_held_in_place() -> None:
    net = pruned("unet")
    wanted = {name: t.clone() for name, t in net.module.state_dict().items()}
    places = [t.data_ptr() for t in net.module.state_dict().values()]
    with torch.no_grad():
        for name, parameter in net.module.named_parameters():
            for axis in net.plan.initializers.get(name, ()):
                if axis.masked:
                    parameter.index_fill_(axis.axis, torch.tensor(axis.cut), 7.0)
    assert not identical(net.module.state_dict(), wanted)
    net.hold_masks()
    assert identical(net.module.state_dict(), wanted)
    assert [t.data_ptr() for t in net.module.state_dict().values()] == places
    hold_masks(net.module, PruningPlan(families=(), initializers={}))
    assert identical(net.module.state_dict(), wanted)


# --- modules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_the_compact_module_computes_what_the_masked_one_does(name: str) -> None:
    net = pruned(name)
    dense = built(name)
    before = copy.deepcopy(dense.state_dict())
    small = compact_module(dense, net.plan, EXAMPLE)
    assert type(small) is type(dense)
    assert identical(dense.state_dict(), before)
    wanted = shrink_state(before, net.plan)
    assert identical(small.state_dict(), wanted)
    assert sum(t.numel() for t in wanted.values()) < sum(t.numel() for t in before.values())
    with torch.no_grad():
        close(small(images_of(name)), net.module(images_of(name)))
    compact = remove_channels(net.graph, net.channels, net.cut)
    (seen,) = runner_from_graph(compact)(images_of(name).numpy())
    with torch.no_grad():
        close(torch.from_numpy(seen), small(images_of(name)))


@pytest.mark.parametrize("name", CLASSES)
def test_modules_know_their_new_widths(name: str) -> None:
    """A layer built anew from the numbers that a shrunk layer shows has the same shapes."""
    for layer in pruned(name).compact().modules():
        fresh: nn.Module
        if isinstance(layer, nn.Conv2d):
            fresh = nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,  # type: ignore[arg-type]
                groups=layer.groups,
                bias=layer.bias is not None,
            )
        elif isinstance(layer, nn.ConvTranspose2d):
            fresh = nn.ConvTranspose2d(layer.in_channels, layer.out_channels, layer.kernel_size)  # type: ignore[arg-type]
        elif isinstance(layer, nn.BatchNorm2d):
            fresh = nn.BatchNorm2d(layer.num_features)
        elif isinstance(layer, nn.Linear):
            fresh = nn.Linear(layer.in_features, layer.out_features)
        elif isinstance(layer, nn.PReLU):
            fresh = nn.PReLU(layer.num_parameters)
        else:
            continue
        own = {n: t.shape for n, t in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]}
        assert own == {n: t.shape for n, t in fresh.state_dict().items()}, layer


def test_a_shrunk_layer_shows_its_new_numbers() -> None:
    small = pruned("depthwise, multiplier 2").compact()
    assert repr(small.get_submodule("a.0")).startswith("Conv2d(3, 4, kernel_size=(3, 3)")
    assert repr(small.get_submodule("b")).startswith("Conv2d(4, 8, kernel_size=(3, 3)")
    assert "groups=4" in repr(small.get_submodule("b"))
    assert repr(small.get_submodule("n")).startswith("BatchNorm2d(8, ")
    assert repr(pruned("PReLU").compact().get_submodule("slope")) == "PReLU(num_parameters=4)"
    assert "in_features=8, out_features=4" in repr(pruned("linear").compact().get_submodule("narrow"))
    assert repr(pruned("transposed convolution").compact().get_submodule("up")).startswith("ConvTranspose2d(4, 3,")


def test_a_module_used_twice_stays_one() -> None:
    small = pruned("shared convolution").compact()
    assert len([m for m in small.modules() if isinstance(m, nn.Conv2d)]) == 3
    assert small.get_submodule("b").weight.shape == (4, 4, 3, 3)  # type: ignore[union-attr]


def test_a_tensor_of_two_layers_stays_one() -> None:
    net = pruned("tied")
    assert net.plan.initializers["c.weight"] == net.plan.initializers["b.weight"]
    assert PruningPlan.from_json(net.plan.to_json()) == net.plan
    small = net.compact()
    assert small.get_parameter("b.weight") is small.get_parameter("c.weight")
    assert small.get_parameter("b.weight").shape == (4, 4, 3, 3)
    assert net.module.get_parameter("b.weight") is net.module.get_parameter("c.weight")


def test_a_block_used_twice_stays_one() -> None:
    """Its buffers are two entries of the state, too."""
    block = nets.unit(8, 8)
    net = PrunedModel.from_module(
        nets.randomized(nn.Sequential(nets.unit(3, 8), block, block, nn.Conv2d(8, 2, 1))), EXAMPLE
    )
    net.apply_cut(u.label for f in net.channels.families for u in f.units[::2])
    small = net.compact()
    assert small.get_buffer("1.1.running_mean") is small.get_buffer("2.1.running_mean")
    assert small.get_buffer("1.1.running_mean").shape == (4,)
    with torch.no_grad():
        close(small(IMAGES), net.module(IMAGES))


def test_groups_stay_where_one_input_a_group_is_left() -> None:
    layer = pruned("narrow groups").compact().get_submodule("b")
    assert isinstance(layer, nn.Conv2d)
    assert (layer.in_channels, layer.out_channels, layer.groups) == (4, 8, 4)


def test_an_answer_of_booleans() -> None:
    net = PrunedModel.from_module(nets.randomized(Verdict()), EXAMPLE)
    net.apply_cut(u.label for f in net.channels.families for u in f.units[::2])
    with torch.no_grad():
        assert net.compact()(IMAGES).dtype == torch.bool


def test_a_module_that_cannot_be_copied_is_refused() -> None:
    net = nets.Plain()
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(net.head)
    with pytest.raises(UnsupportedGraphError, match="Plain cannot be copied: ") as caught:
        PrunedModel.from_module(net, EXAMPLE)
    assert "remove_..." in caught.value.hint


def test_modes_and_frozen_parameters_survive() -> None:
    plan, dense = pruned("plain").plan, built("plain").train()
    dense.get_submodule("a").eval()
    dense.get_parameter("a.0.weight").requires_grad_(False)
    small = compact_module(dense, plan, EXAMPLE)
    frozen = {name for name, p in small.named_parameters() if not p.requires_grad}
    assert frozen == {"a.0.weight"}
    assert small.training and small.get_submodule("b").training and not small.get_submodule("a").training


def test_the_empty_plan_gives_a_copy() -> None:
    dense = built("plain")
    small = compact_module(dense, PruningPlan(families=(), initializers={}), EXAMPLE)
    assert small is not dense and identical(small.state_dict(), dense.state_dict())


@pytest.mark.parametrize("name", REFUSED)
def test_a_class_that_cannot_shrink_is_recognised(name: str) -> None:
    net = pruned(name)
    before = {key: t.clone() for key, t in net.module.state_dict().items()}
    with pytest.raises(UnsupportedGraphError) as caught:
        net.compact()
    assert caught.value.message.startswith(REFUSED[name][1])
    assert "trained masked" in caught.value.hint
    assert identical(net.module.state_dict(), before)
    # The graph is compact all the same, and exact.
    with torch.no_grad():
        wanted = net.module(IMAGES)
    (seen,) = runner_from_graph(remove_channels(net.graph, net.channels, net.cut))(IMAGES.numpy())
    close(torch.from_numpy(seen), wanted)


def test_the_plan_of_another_model_is_refused() -> None:
    plan = pruned("unet").plan
    with pytest.raises(PlanError, match=r"the plan cuts \S+ along axis \d of width \d+, here its shape is \("):
        compact_module(UNet(width=8, depth=1), plan, EXAMPLE)
    with pytest.raises(PlanError, match="family"):
        pruned("plain").apply(plan)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "large"])
def test_mobilenet(size: str) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    net = PrunedModel.from_module(nets.randomized(MobileNetV3LRASPP(size, classes=3)), images)  # type: ignore[arg-type]
    generator = np.random.default_rng(0)
    net.apply_cut(
        family.units[i].label
        for family in net.channels.families
        for i in generator.permutation(family.width)[: family.width // 2]
    )
    small = net.compact()
    with torch.no_grad():
        close(small(images), net.module(images))
    assert sum(p.numel() for p in small.parameters()) < 0.4 * sum(p.numel() for p in net.module.parameters())


# --- trained ---------------------------------------------------------------------------------------------------


def train(module: nn.Module, hold: Callable[[], None] | None = None, steps: int = 5) -> None:
    """A few steps towards random targets, in train mode, so that batch norms move too."""
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    module.train()
    for _ in range(steps):
        images = torch.randn(4, 3, 16, 16, generator=generator)
        loss = (module(images) - images[:, :2]).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if hold is not None:
            hold()
    module.eval()


@pytest.mark.parametrize(
    "name", ["unet", "depthwise, multiplier 2", "PReLU", "shared convolution", "squeeze-excitation"]
)
def test_what_the_compact_net_learns_is_what_the_pruned_one_shows(name: str) -> None:
    net = pruned(name)
    small = net.compact()
    assert net.compact() is small
    with torch.no_grad():
        before = small(IMAGES)
    train(small)
    with torch.no_grad():
        wanted = small(IMAGES)
        assert float((wanted - before).abs().max()) > 1e-2 and float(wanted.std()) > 1e-2
        close(net.module.eval()(IMAGES), wanted)
    (seen,) = runner_from_graph(remove_channels(net.graph, net.channels, net.cut))(IMAGES.numpy())
    close(torch.from_numpy(seen), wanted)
    references = net.references()
    assert list(references.others) == ["compact torch"] and not references.missing


@pytest.mark.parametrize("name", ["unet", "residual"])
def test_masked_and_compact_training_take_the_same_way(name: str) -> None:
    """Which of the two is trained is a matter of speed alone."""
    masked, compact = pruned(name), pruned(name)
    train(masked.module, masked.hold_masks)
    train(compact.compact())
    with torch.no_grad():
        a, b = masked.module(IMAGES), compact.module.eval()(IMAGES)
    assert float(b.std()) > 1e-2
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def test_a_net_that_was_trained_masked_shrinks_with_what_it_learnt() -> None:
    net = pruned("unet")
    with torch.no_grad():
        before = net.module(IMAGES)
    train(net.module, net.hold_masks)
    with torch.no_grad():
        wanted = net.module(IMAGES)
        assert float((wanted - before).abs().max()) > 1e-2 and float(wanted.std()) > 1e-2
        close(net.compact().eval()(IMAGES), wanted)
        close(net.module.eval()(IMAGES), wanted)


def test_cutting_further_goes_on_from_the_trained_net() -> None:
    net = pruned("unet")
    train(net.compact())
    first = net.cut
    with torch.no_grad():
        trained = net.module.eval()(IMAGES)
    net.apply_cut(first)  # the same cut again changes nothing
    with torch.no_grad():
        close(net.module.eval()(IMAGES), trained)
    more = {next(u.label for u in f.units if u.label not in first) for f in net.channels.families if f.width > 3}
    net.apply_cut(first | more)
    assert net.cut == first | more
    with torch.no_grad():
        wanted = net.module.eval()(IMAGES)
        assert float((wanted - trained).abs().max()) > 1e-3
        close(net.compact().eval()(IMAGES), wanted)


def test_other_dense_weights_may_be_taken_over() -> None:
    net = pruned("unet")
    net.compact()
    torch.manual_seed(9)
    other = nets.randomized(UNet(width=4, depth=1), seed=9).state_dict()
    net.load_dense_state(other)
    assert identical(net.module.state_dict(), mask_state(other, net.plan))
    assert identical(net.compact().state_dict(), shrink_state(other, net.plan))
