"""Criteria that look at gradients: Taylor by hand, lessons, and a window of training steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import edgeslim
from edgeslim.errors import ConfigError, DataError, TrainingError
from edgeslim.trainer.criteria import Differentiable
from edgeslim.trainer.criteria.gradient_count import GradientCount
from edgeslim.trainer.criteria.taylor import Taylor
from edgeslim.trainer.lesson import BATCH, NO_LESSON, Learning, Lesson, centred_norm
from edgeslim.trainer.pruned import PrunedModel

from . import nets

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(BATCH + 3, 3, 16, 16, generator=GENERATOR)
MASKS = torch.randint(0, 2, (BATCH + 3, 16, 16), generator=GENERATOR)
LESSON = Lesson(loss=F.cross_entropy, targets=MASKS)


@pytest.fixture(scope="module")
def net() -> PrunedModel:
    torch.manual_seed(0)
    return PrunedModel.from_module(nets.randomized(nets.Plain()), torch.randn(1, 3, 16, 16))


def learning(net: PrunedModel, lesson: Lesson = LESSON) -> Learning:
    return Learning(net=net, lesson=lesson)


# --- gradients -------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_the_loss_batch_by_batch(net: PrunedModel) -> None:
    learner = learning(net)
    assert isinstance(learner, Differentiable) and not isinstance(net, Differentiable)
    found = list(learner.gradients(IMAGES.numpy()))
    assert len(found) == 2
    module = net.module.eval()
    for part, own in zip((slice(0, BATCH), slice(BATCH, None)), found):
        module.zero_grad()
        F.cross_entropy(module(IMAGES[part]), MASKS[part]).backward()  # type: ignore[no-untyped-call]
        assert own.keys() == dict(module.named_parameters()).keys()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            np.testing.assert_allclose(own[name], parameter.grad.double().numpy(), rtol=1e-4, atol=1e-7)
    module.zero_grad()


def test_a_window_of_steps_goes_round_and_learns_on_a_copy(net: PrunedModel) -> None:
    before = {name: t.clone() for name, t in net.module.state_dict().items()}
    held = list(learning(net).gradients(IMAGES.numpy(), steps=5))
    np.testing.assert_array_equal(held[0]["a.0.weight"], held[4]["a.0.weight"])
    moved = list(learning(net).gradients(IMAGES.numpy(), steps=5, rate=0.5))
    assert len(held) == len(moved) == 5
    np.testing.assert_array_equal(moved[0]["a.0.weight"], held[0]["a.0.weight"])
    assert not np.allclose(moved[4]["a.0.weight"], held[4]["a.0.weight"])
    assert all(torch.equal(t, before[name]) for name, t in net.module.state_dict().items())
    assert all(p.grad is None for p in net.module.parameters())


def test_frozen_parameters_have_gradients_too(net: PrunedModel) -> None:
    frozen = PrunedModel(nets.randomized(nets.Plain()), torch.zeros(1, 3, 16, 16), net.channels)
    for parameter in frozen.module.parameters():
        parameter.requires_grad_(False)
    (first, _) = learning(frozen).gradients(IMAGES.numpy())
    assert "a.0.weight" in first and not any(p.requires_grad for p in frozen.module.parameters())


def test_without_targets_the_loss_is_the_norm_of_centred_logits(net: PrunedModel) -> None:
    logits = torch.tensor([[[1.0]], [[3.0]]]).view(1, 2, 1, 1).requires_grad_()
    assert float(centred_norm(logits).detach()) == 2.0
    assert float(centred_norm((logits + 5.0).detach())) == 2.0
    assert float(centred_norm(torch.full((4, 1, 2, 2), 3.0))) == 9.0  # one channel has no others to be centred by
    assert float(centred_norm([torch.full((2,), 2.0), torch.ones(3, dtype=torch.long)])) == 4.0
    assert len(list(learning(net, NO_LESSON).gradients(IMAGES.numpy()))) == 2


# --- scores ----------------------------------------------------------------------------------------------------


def test_taylor_by_hand(net: PrunedModel) -> None:
    module, images, masks = net.module.eval(), IMAGES[:BATCH], MASKS[:BATCH]
    F.cross_entropy(module(images), masks).backward()  # type: ignore[no-untyped-call]

    def effect(name: str) -> Tensor:
        parameter = module.get_parameter(name)
        assert parameter.grad is not None
        return (parameter.detach() * parameter.grad).double().abs().flatten(1 if parameter.ndim > 1 else 0)

    wanted = [
        effect(f"{layer}.0.weight").sum(1) + effect(f"{layer}.1.weight") + effect(f"{layer}.1.bias") for layer in "ab"
    ]
    module.zero_grad()
    scores = Taylor().score(learning(net), images.numpy())
    np.testing.assert_allclose(scores, torch.cat(wanted).numpy(), rtol=1e-4)


def test_taylor_knows_what_the_head_does_not_read() -> None:
    """Weights and feature maps of channel 5 are the largest of all, and the head ignores it."""
    torch.manual_seed(0)
    module = nets.randomized(nets.Plain())
    with torch.no_grad():
        module.get_parameter("b.0.weight")[5] *= 20.0
        module.get_parameter("head.weight")[:, 5] = 0.0
    own = PrunedModel.from_module(module, IMAGES[:1])
    scores = Taylor().score(learning(own), IMAGES.numpy())[8:]
    assert scores[5] == 0.0 < np.delete(scores, 5).min()
    pruned = edgeslim.prune(module, IMAGES[:1], ratio=0.125, criterion="taylor", calibration=IMAGES)
    assert 5 not in next(f.keep for f in pruned.plan.families if f.name == "b.0.weight")


def test_how_often_a_filter_is_taught(net: PrunedModel) -> None:
    torch.manual_seed(0)
    module = nets.randomized(nets.Plain())
    with torch.no_grad():
        module.get_parameter("head.weight")[:, 2] = 0.0  # what nobody reads is not taught, until the head learns
    own = PrunedModel(module, torch.zeros(1, 3, 16, 16), net.channels)
    counted = GradientCount(on="loss", window=4, rate=0.0, beta=None, eps=0.0).score(learning(own), IMAGES.numpy())[8:]
    assert counted[2] == 0.0 and np.delete(counted, 2).min() > 0.0
    rule = GradientCount(on="loss", window=4, rate=0.5, beta=None, eps=0.0)
    assert rule.score(learning(own), IMAGES.numpy())[8:][2] == pytest.approx(0.75 / (7.75 / 8))


# --- prune with a loss -----------------------------------------------------------------------------------------


def module() -> nn.Module:
    torch.manual_seed(0)
    return nets.randomized(nets.Plain())


def test_prune_with_a_loss_of_ones_own(net: PrunedModel) -> None:
    pairs = list(zip(IMAGES.split(4), MASKS.split(4)))
    given = {"ratio": 0.5, "criterion": "taylor", "calibration": pairs, "loss": F.cross_entropy}
    pruned = edgeslim.prune(module(), IMAGES[:1], **given)  # type: ignore[arg-type]
    scores = Taylor().score(learning(PrunedModel(module(), IMAGES[:1], net.channels)), IMAGES.numpy())
    for family, own in zip(pruned.plan.families, np.split(scores, 2)):
        assert set(family.keep) == set(own.argsort()[4:].tolist())
    # A criterion that looks at images alone takes the same pairs.
    edgeslim.prune(module(), IMAGES[:1], **(given | {"criterion": "ln_norm"}))  # type: ignore[arg-type]


PAIR = (IMAGES[:2], MASKS[:2])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"criterion": "taylor"}, "criterion taylor looks at gradients"),
        ({"criterion": GradientCount()}, "criterion gradient_count looks at feature maps"),
        ({"criterion": "taylor", "loss": F.cross_entropy, "calibration": [IMAGES]}, "calibration batch 0 is Tensor"),
        ({"criterion": "taylor", "loss": F.cross_entropy, "calibration": [(IMAGES, MASKS[:1])]}, "as many of one as"),
        ({"criterion": "taylor", "loss": 3, "calibration": [PAIR]}, "loss is a int"),
        (
            {"criterion": "taylor", "loss": F.cross_entropy, "calibration": [PAIR, (IMAGES[:2], MASKS[:2, :8])]},
            "targets of calibration do not fit together",
        ),
        (
            {"criterion": "taylor", "loss": F.cross_entropy, "calibration": [(IMAGES[:2], MASKS[:2, :8])]},
            "the loss fails on calibration images from number 0",
        ),
        (
            {"criterion": "taylor", "loss": lambda z, t: z, "calibration": [PAIR]},
            r"the loss is a tensor \(2, 2, 16, 16\) without a gradient, or no scalar",
        ),
        ({"criterion": "taylor", "loss": lambda z, t: 1.0, "calibration": [PAIR]}, "the loss is a float"),
        ({"criterion": "taylor", "loss": lambda z, t: z.detach().sum(), "calibration": [PAIR]}, "without a gradient"),
    ],
)  # fmt: skip
def test_a_lesson_that_is_none(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        edgeslim.prune(module(), IMAGES[:1], ratio=0.5, **options)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_loss_that_is_not_finite(net: PrunedModel) -> None:
    lesson = Lesson(loss=lambda z, t: z.sum() * float("nan"), targets=MASKS)
    with pytest.raises(TrainingError, match="the loss of calibration images from number 0 is nan"):
        Taylor().score(learning(net, lesson), IMAGES.numpy())


def test_images_that_the_net_does_not_take(net: PrunedModel) -> None:
    with pytest.raises(DataError, match=r"does not run on calibration images of shape \(2, 5, 16, 16\)"):
        Taylor().score(learning(net), np.zeros((2, 5, 16, 16), np.float32))
