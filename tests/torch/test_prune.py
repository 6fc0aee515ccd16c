"""The public verb: options that are wrong, a module that stays as it is, and the three lines of the README."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgeslim
from edgeslim.errors import BudgetError, ConfigError, DataError, UnsupportedGraphError
from edgeslim.exporter.cost import count_macs
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.trainer.checkpoint import copy_state
from edgeslim.trainer.criteria.ln_norm import LnNorm
from edgeslim.trainer.models.unet import UNet
from edgeslim.trainer.pruned import PrunedModel

from . import nets

IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
EXAMPLE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nets.randomized(nets.Plain())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give either ratio or target"),
        ({"ratio": 0.5, "target": "macs=0.5x"}, "give either ratio or target"),
        ({"ratio": 0.0}, "ratio is 0.0; it must lie between 0 and 1"),
        ({"ratio": 1.0}, "ratio is 1.0; it must lie between 0 and 1"),
        ({"ratio": -0.5}, "ratio is -0.5"),
        ({"ratio": 1.5}, "ratio is 1.5"),
        ({"ratio": math.nan}, "ratio is nan"),
        ({"target": ""}, "target is ''"),
        ({"target": "half"}, "target 'half': 'half' is not understood"),
        ({"target": "macs=0x"}, "target 'macs=0x': 'macs=0x' leaves nothing"),
        ({"target": "macs=0.0x"}, "target 'macs=0.0x': 'macs=0.0x' leaves nothing"),
        ({"target": "macs=0.5xx"}, "target 'macs=0.5xx': the unit of macs is 'xx'"),
        ({"ratio": 0.5, "min_share": 0.5}, "min_share goes with target"),
        ({"target": "macs=0.5x", "min_share": 1.0}, "min_share is 1.0; it must be at least 0 and below 1"),
        ({"target": "macs=0.5x", "min_share": True}, "min_share is True"),
        ({"target": "macs=0.5x", "min_share": math.nan}, "min_share is nan"),
        ({"ratio": 0.5, "criterion": "l3"}, "criterion 'l3' is unknown"),
        ({"ratio": 0.5, "criterion": "ln_norm"}, "criterion ln_norm looks at feature maps"),
        ({"ratio": 0.5, "calibration": []}, "calibration is empty"),
        ({"ratio": 0.5, "calibration": [EXAMPLE[:0]]}, "calibration is empty"),
        ({"ratio": 0.5, "calibration": [EXAMPLE[:0]], "criterion": "ln_norm", "recovery": []}, "calibration is empty"),
        (
            {"ratio": 0.5, "calibration": [(EXAMPLE[:0], EXAMPLE[:0])], "loss": torch.nn.functional.mse_loss},
            "calibration is empty",
        ),
        (
            {"ratio": 0.5, "calibration": [(EXAMPLE, torch.tensor(1))], "loss": torch.nn.functional.cross_entropy},
            r"calibration batch 0 is tuple; with a loss it is \(images, targets\), as many",
        ),
        (
            {"ratio": 0.5, "calibration": [(EXAMPLE[0, 0, 0, 0],) * 2], "loss": torch.nn.functional.mse_loss},
            "targets of calibration do not fit together",
        ),
        ({"ratio": 0.5, "calibration": 5}, "calibration is a int"),
        ({"ratio": 0.5, "calibration": [EXAMPLE * math.nan]}, "calibration batch 0 holds numbers that are not finite"),
        ({"ratio": 0.5, "criterion": ["l1"]}, r"criterion \['l1'\] is unknown"),
        ({"target": 0.5}, "target is 0.5"),
        ({"ratio": 0.5, "calibration": [(EXAMPLE, 0, 0)]}, "calibration batch 0 is tuple, not a batch of images"),
        ({"ratio": 0.5, "calibration": [(5, EXAMPLE)]}, "calibration batch 0 is tuple, not a batch of images"),
        (
            {"ratio": 0.5, "calibration": [EXAMPLE, EXAMPLE[0]]},
            r"calibration batch 1 is \(3, 16, 16\), not a batch of images .*like \(1, 3, 16, 16\)",
        ),
        ({"ratio": 0.5, "calibration": [EXAMPLE, EXAMPLE[..., :8]]}, r"calibration batch 1 is \(1, 3, 16, 8\)"),
        ({"ratio": 0.5, "calibration": [EXAMPLE[:, :1]]}, r"calibration batch 0 is \(1, 1, 16, 16\)"),
    ],
)
def test_an_option_that_is_wrong(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        edgeslim.prune(plain(), EXAMPLE, **options)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_copy_has_weights_of_its_own() -> None:
    pruned = edgeslim.prune(plain(), EXAMPLE, ratio=0.5)
    for compact in (False, True):
        if compact:
            pruned.compact()
        twin = copy.deepcopy(pruned)
        assert twin.plan == pruned.plan and twin.channels is pruned.channels
        before = copy_state(pruned.module.state_dict())
        trained = twin.compact() if compact else twin.module
        with torch.no_grad():
            for parameter in trained.parameters():
                parameter += 1.0
        assert all(torch.equal(t, before[name]) for name, t in pruned.module.state_dict().items())
        assert not torch.equal(twin.module.state_dict()["head.weight"], before["head.weight"])


def test_the_module_itself_is_not_changed() -> None:
    module = plain().train()
    module.get_submodule("a.1").eval()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    pruned = edgeslim.prune(module, EXAMPLE, ratio=0.5)
    pruned.compact()
    assert pruned.module is not module
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    assert all(p.grad is None for p in module.parameters())


@functools.cache
def halved() -> edgeslim.PrunedModel:
    return edgeslim.prune(plain(), EXAMPLE, ratio=0.5)


def test_a_ratio_cuts_that_share_of_every_family() -> None:
    pruned = halved()
    assert [(f.width, len(f.keep)) for f in pruned.plan.families] == [(8, 4), (8, 4)]
    assert [(e.layer, e.width_before, e.width_after) for e in pruned.coverage] == [
        ("a.0.weight", 8, 4),
        ("b.0.weight", 8, 4),
        ("head.weight", 2, 2),
    ]
    assert pruned.coverage.summary.startswith("pruned 2 of 3 layers; 1 kept: 1 graph output")


def test_the_smallest_kernels_go() -> None:
    pruned, module = halved(), plain()
    for name in ("a.0.weight", "b.0.weight"):
        sizes = module.get_parameter(name).detach().abs().sum((1, 2, 3))
        family = next(f for f in pruned.plan.families if f.name == name)
        assert set(family.keep) == set(sizes.argsort()[4:].tolist())


def test_what_is_cut_is_silent_and_the_rest_is_untouched() -> None:
    pruned, module = halved(), plain()
    state = module.state_dict()
    for name, tensor in pruned.module.state_dict().items():
        wanted = pruned.plan.mask(name, state[name].numpy())
        np.testing.assert_array_equal(tensor.numpy(), wanted)
    assert len({e.family for e in pruned.coverage if e.family}) == 2


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({"ratio": 0.3}, [6, 6]),
        ({"ratio": 0.9}, [1, 1]),
        ({"ratio": 0.6, "width_multiple": 3}, [6, 6]),
        ({"ratio": 0.9, "min_width": 5}, [5, 5]),
        ({"ratio": 0.5, "width_multiple": 8, "min_width": 8}, [8, 8]),
    ],
)
def test_widths_follow_the_device(options: dict[str, object], widths: list[int]) -> None:
    pruned = edgeslim.prune(plain(), EXAMPLE, **options)  # type: ignore[arg-type]
    assert [len(f.keep) for f in pruned.plan.families] == widths


@pytest.mark.parametrize("target", ["macs=0.5x", "macs=.5", " macs = 0.5 x "])
def test_a_target_of_macs_is_met_by_the_compact_graph(target: str) -> None:
    pruned = edgeslim.prune(plain(), EXAMPLE, target=target)
    shape = (1, 3, 16, 16)
    compact = remove_channels(pruned.graph, pruned.channels, pruned.cut)
    share = count_macs(compact, shape) / count_macs(pruned.graph, shape)
    assert 0.35 < share <= 0.5


def test_a_target_out_of_reach() -> None:
    with pytest.raises(BudgetError, match=r"0\.001 of the dense net's MACs cannot be reached"):
        edgeslim.prune(plain(), EXAMPLE, target="macs=0.001x")


@pytest.mark.parametrize(
    "calibration",
    [
        lambda images: images,  # one tensor is one batch
        lambda images: list(images.split(2)),
        lambda images: (batch for batch in images.split(3)),
        lambda images: [images.clone().requires_grad_()],
    ],
    ids=["tensor", "list", "generator", "with gradients"],
)
def test_the_ln_norm_looks_at_the_calibration_images(calibration: Callable[[Tensor], object]) -> None:
    given = calibration(IMAGES)
    seen = edgeslim.prune(plain(), EXAMPLE, ratio=0.5, criterion="ln_norm", calibration=given)  # type: ignore[arg-type]
    scores = LnNorm().score(PrunedModel(plain(), EXAMPLE, halved().channels), IMAGES.numpy())
    for family, own in zip(seen.plan.families, np.split(scores, 2)):
        assert set(family.keep) == set(own.argsort()[4:].tolist())


def test_calibration_images_of_a_size_that_the_net_does_not_take() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 2))
    with pytest.raises(DataError, match=r"does not run on a calibration image of shape \(3, 20, 20\)"):
        edgeslim.prune(net, EXAMPLE, ratio=0.5, criterion="ln_norm", calibration=torch.randn(1, 3, 20, 20))


def test_the_same_arguments_give_the_same_plan() -> None:
    assert edgeslim.prune(plain(), EXAMPLE, ratio=0.5).plan.to_json() == halved().plan.to_json()


def test_a_net_with_nothing_to_prune_comes_back_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nets.Fixed()
    pruned = edgeslim.prune(module, EXAMPLE, ratio=0.5)
    assert pruned.cut == frozenset() and pruned.plan.families == ()
    assert pruned.coverage.summary.startswith("pruned 0 of 1 layers")
    with pytest.raises(BudgetError, match="no channel of this net can be pruned"):
        edgeslim.prune(module, EXAMPLE, target="macs=0.5x")
    with torch.no_grad():
        assert torch.equal(pruned.module(EXAMPLE), module.eval()(EXAMPLE))
    with edgeslim.runtime.load(edgeslim.export(pruned, tmp_path / "dense.bundle")) as session:
        assert session.manifest.certificate.passed


@pytest.mark.parametrize("target", ["macs=1.0x", "macs=2x"])
def test_a_target_that_keeps_all_cuts_nothing_and_says_so(target: str) -> None:
    pruned = edgeslim.prune(plain(), EXAMPLE, target=target)
    assert not pruned.cut and pruned.reached is not None
    assert "nothing was cut, for the net met it as it was" in str(pruned.reached)


def test_a_net_that_does_not_run() -> None:
    with pytest.raises(UnsupportedGraphError, match=r"Plain: forward fails on an input of shape \(1, 5, 16, 16\)"):
        edgeslim.prune(plain(), torch.zeros(1, 5, 16, 16), ratio=0.5)


def test_the_readme_in_five_lines(tmp_path: Path) -> None:
    """The public API as DESIGN.md states it, on a net of its own with a fine-tune in between."""
    torch.manual_seed(0)
    module, example = nets.randomized(UNet(width=8, depth=1)), torch.randn(2, 3, 32, 32)
    pruned = edgeslim.prune(module, example, ratio=0.5, criterion="l1")
    assert isinstance(pruned, edgeslim.PrunedModel)
    assert len(pruned.coverage) == 8

    small = pruned.compact().train()
    assert sum(p.numel() for p in small.parameters()) < 0.3 * sum(p.numel() for p in module.parameters())
    optimizer = torch.optim.Adam(small.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        small(example).square().mean().backward()
        optimizer.step()

    bundle = edgeslim.export(pruned, tmp_path / "out.bundle")
    assert bundle == tmp_path / "out.bundle"
    frame = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    with edgeslim.runtime.load(bundle) as session:
        (logits,) = session.run(frame).values()
    with torch.no_grad():
        wanted = small.eval()(torch.from_numpy(frame).permute(2, 0, 1)[None] / 255)[0].numpy()
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5 * float(np.abs(wanted).max()))
