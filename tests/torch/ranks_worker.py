"""One of two processes under torchrun: runs every check of `CHECKS` and writes what came out as JSON.

Both ranks can compute what one process would, from the same seeds; each compares its part with that. The tests in
`test_ranks` look at the numbers.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.errors import EdgeslimError, TrainingError
from edgeslim.exporter.plan import plan_from_cut
from edgeslim.progress import Silent
from edgeslim.trainer.checkpoint import load_checkpoint
from edgeslim.trainer.criteria import CRITERIA
from edgeslim.trainer.criteria.gradient_count import GradientCount
from edgeslim.trainer.data.augment import Augment, ImageAugment
from edgeslim.trainer.fit import adopt, fit
from edgeslim.trainer.lesson import Learning, Lesson
from edgeslim.trainer.losses import SegmentationLoss, distillation
from edgeslim.trainer.models.unet import UNet
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.ranks import Launch, Ranks
from edgeslim.trainer.ranks.agree import check_same_plan, check_same_start, check_same_weights, digest_of
from edgeslim.trainer.ranks.batch_norm import shared_statistics
from edgeslim.trainer.ranks.opening import open_ranks
from edgeslim.trainer.ranks.share import Draws, share_criterion
from edgeslim.trainer.recipe import AugmentSection
from edgeslim.trainer.workspace import open_workspace

from .runs import recipe, section

Found = dict[str, Any]
BATCH = 3


def distance(a: Tensor, b: Tensor) -> float:
    return float((a.detach().double() - b.detach().double()).abs().max())


def told(call: Callable[[], object]) -> str:
    """The error's type and message, or nothing."""
    try:
        call()
    except EdgeslimError as error:
        return f"{type(error).__name__}: {error.message}"
    return ""


class Norms(nn.Module):
    """Batch norm after a convolution, with images of other means in every half of a batch."""

    def __init__(self, momentum: float | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4, momentum=momentum)
        self.flat = nn.BatchNorm1d(4, affine=False, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.flat(self.norm(self.conv(x)).mean((2, 3)) ** 2)


def batch_norm(ranks: Ranks) -> Found:
    found: Found = {}
    for momentum in (0.1, None):
        torch.manual_seed(0)
        alone, shared = Norms(momentum), Norms(momentum)
        shared.load_state_dict(alone.state_dict())
        images = torch.rand(2 * BATCH, 3, 8, 8) + torch.arange(2 * BATCH)[:, None, None, None]
        weights = torch.rand(2 * BATCH, 4)
        whole, mine = (images.clone().requires_grad_(), images[ranks.own(BATCH)].clone().requires_grad_())
        wanted = alone(whole)
        (wanted * weights).sum().backward()
        with shared_statistics(ranks):
            seen = shared(mine)
        (seen * weights[ranks.own(BATCH)]).sum().backward()
        for parameter in shared.parameters():
            assert parameter.grad is not None
            parameter.grad = ranks.total(parameter.grad)
        assert whole.grad is not None and mine.grad is not None
        found[str(momentum)] = {
            "forward": distance(seen, wanted[ranks.own(BATCH)]),
            "images": distance(mine.grad, whole.grad[ranks.own(BATCH)]),
            "weights": max(
                distance(a.grad, b.grad)
                for a, b in zip(alone.parameters(), shared.parameters())
                if a.grad is not None and b.grad is not None
            ),
            "running": max(distance(a, b) for a, b in zip(alone.buffers(), shared.buffers())),
        }
    norm = shared.norm.eval()
    with shared_statistics(ranks):  # by running statistics, so that ranks may look at different numbers of images
        found["eval"] = distance(norm(images.repeat(1, 2, 1, 1)[: 1 + ranks.rank, :4]), torch.zeros(()))
    found["eval"] -= distance(norm(images.repeat(1, 2, 1, 1)[: 1 + ranks.rank, :4]), torch.zeros(()))
    with shared_statistics(ranks):
        narrow = F.batch_norm(images[ranks.own(BATCH)].bfloat16(), None, None, training=True)
    found["bfloat16"] = distance(narrow, F.batch_norm(images, None, None, training=True)[ranks.own(BATCH)])
    found["dtype"] = str(narrow.dtype)
    return found


def losses(ranks: Ranks) -> Found:
    """Ranks with other numbers of labelled pixels, and a class that only one of them sees."""
    torch.manual_seed(1)
    logits, teacher = torch.randn(2 * BATCH, 3, 5, 5), torch.randn(2 * BATCH, 3, 5, 5)
    masks = torch.randint(0, 2, (2 * BATCH, 5, 5))
    masks[:2], masks[-1, 0] = 255, 2
    plain = SegmentationLoss(1.0, 0.5, 3, 255, 0.1)
    whole, mine = logits.clone().requires_grad_(), logits[ranks.own(BATCH)].clone().requires_grad_()
    valid, own = masks != 255, ranks.own(BATCH)
    wanted = plain(whole, masks) + distillation(whole, teacher, 2.0, valid)
    seen = plain.across(ranks.total)(mine, masks[own]) + distillation(mine, teacher[own], 2.0, valid[own], ranks.total)
    wanted.backward()
    seen.backward()
    assert whole.grad is not None and mine.grad is not None
    # Two ranks have this loss each, and DDP takes their mean: twice the gradient here, once there.
    return {"value": distance(seen, wanted), "gradient": distance(mine.grad, 2 * whole.grad[own])}


def augment(ranks: Ranks) -> Found:
    strong = AugmentSection(flip=True, rotate_degrees=30.0, scale=0.2, brightness=0.3, contrast=0.3)
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(2 * BATCH, 3, 12, 12, generator=generator)
    masks = torch.randint(0, 3, (2 * BATCH, 12, 12), generator=generator)
    own, found = ranks.own(BATCH), []
    for options in (strong, AugmentSection(flip=False)):
        torch.manual_seed(3)
        wanted = Augment(options, 255)(images, masks)
        torch.manual_seed(3)
        seen = Augment(options, 255, ranks)(images[own], masks[own])
        torch.manual_seed(3)
        alone = ImageAugment(options)(images)
        torch.manual_seed(3)
        mine = ImageAugment(options, ranks)(images[own])
        found += [distance(a, b[own]) for a, b in zip((*seen, mine), (*wanted, alone))]
    return {"worst": max(found), "changed": distance(wanted[0], images) == 0.0}


def agreement(ranks: Ranks) -> Found:
    torch.manual_seed(4)
    net = PrunedModel.from_module(UNet(width=4, depth=1), torch.rand(1, 3, 16, 16))
    labels = net.channels.unit_labels.tolist()
    state = {"w": torch.arange(3.0), "n": torch.tensor(1)}
    other = {**state, "w": state["w"] + 1e-7 * ranks.rank}

    def compute() -> str:
        if not ranks.first:
            raise AssertionError("only the first rank computes")
        raise TrainingError("the disk is full", "free some space")

    net.after_cut = lambda plan: check_same_plan(ranks, plan)
    return {
        "same plan": told(lambda: net.apply_cut([labels[0]])),
        "other plan": told(lambda: net.apply_cut([labels[ranks.rank]])),
        "plan": plan_from_cut(net.channels, [labels[0]]).to_json(),
        "same start": told(lambda: check_same_start(ranks, {"options": "a", "images": "b"})),
        "other start": told(lambda: check_same_start(ranks, {"options": "a", "images": str(ranks.rank)})),
        "same weights": told(lambda: check_same_weights(ranks, "dense", state)),
        "other weights": told(lambda: check_same_weights(ranks, "dense", other)),
        "digest": digest_of({"n": state["n"], "w": state["w"]}) == digest_of(state) != digest_of({"w": state["w"]}),
        "from first": ranks.from_first(lambda: {"rank": ranks.rank, "array": [1.5]}),
        "error of the first": told(lambda: ranks.from_first(compute)),
        "mean": ranks.mean({"a": float(ranks.rank), "b": 2.0}),
        "sums": [a.tolist() for a in ranks.sum_arrays([np.ones((2, 1)), np.full(1, float(ranks.rank))])],
        "draws": list(Draws(ranks, 1, 3, 2)),
        "own": [ranks.own(4).start, ranks.own(4).stop],
    }


def criteria(ranks: Ranks) -> Found:
    """Scores of 20 images, in blocks of 8: two for the first rank, one for the second."""
    torch.manual_seed(5)
    net = PrunedModel.from_module(UNet(width=4, depth=1), torch.rand(1, 3, 16, 16))
    images = torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(6))
    masks = torch.randint(0, 2, (20, 16, 16), generator=torch.Generator().manual_seed(7))
    learning = Learning(net=net, lesson=Lesson(loss=SegmentationLoss(1.0, 1.0, 2, 255), targets=masks))
    rules = [make() for make in CRITERIA.values()] + [GradientCount(on="loss", window=2), GradientCount(on="kernel")]
    found: Found = {}
    for rule in rules:
        wanted = rule.score(learning, images.numpy())
        seen = share_criterion(rule, ranks).score(learning, images.numpy())
        key = f"{rule.name} {getattr(rule, 'on', '')}".strip()
        same = np.allclose(seen, wanted, rtol=1e-12, atol=0.0)  # infinity equals itself
        found[key] = [same, seen.tolist()]
    one = images[:1].numpy()  # the second rank has nothing to look at
    seen = share_criterion(CRITERIA["ln_norm"](), ranks).score(learning, one)
    found["one image"] = [bool(np.array_equal(seen, CRITERIA["ln_norm"]().score(learning, one))), seen.tolist()]
    return found


def training(ranks: Ranks) -> Found:
    """Two ranks with batches of 2 against one process with batches of 4, from the same recipe."""
    folder = Path(ranks.from_first(tempfile.mkdtemp))
    alone = open_workspace(recipe(), folder, Silent())
    workspace = open_workspace(recipe(), folder, Silent(), ranks)
    changed = section(optimizer="sgd", lr=0.1, steps=6)
    wanted = alone.fresh_module()
    fit(wanted, alone.task, changed.model_copy(update={"batch_size": 4}), name="stage", seed=0)
    found: Found = {}
    for strategy in ("ddp", "fsdp"):
        mine = dataclasses.replace(ranks, launch=dataclasses.replace(ranks.launch, strategy=strategy))
        module, place = workspace.fresh_module(), folder / strategy
        result = fit(module, workspace.task, changed, name="stage", seed=0, key="k", directory=place, ranks=mine)
        state, whole = module.state_dict(), wanted.state_dict()
        saved = load_checkpoint(place) if ranks.first else None
        found[strategy] = {
            "weights": max(distance(state[name], whole[name]) for name in whole),
            "moved": distance(state["stem.0.weight"], alone.module.state_dict()["stem.0.weight"]),
            "scores": dict(result.scores),
            "digest": digest_of(state),
            "saved": None if saved is None else digest_of(saved.model) == digest_of(state),
            "types": sorted({type(p).__name__ for p in module.parameters()}),
        }
    other = workspace.fresh_module()
    with torch.no_grad():
        next(other.parameters()).add_(float(ranks.rank))
    given = {"name": "dense", "key": "k", "directory": folder / "given"}
    found["given"] = told(lambda: adopt(other, workspace.task, ranks=ranks, **given))
    changed_recipe = recipe().model_copy(update={"seed": ranks.rank})
    found["opened"] = told(lambda: open_workspace(changed_recipe, folder, Silent(), ranks))
    found["wanted"] = dict(alone.task.evaluate(wanted))
    found["shared scores"] = dict(workspace.task.evaluate(wanted))
    scaled = recipe().model_copy(update={"train": section(batch_size=4)})
    fine = scaled.finetune.fit.model_copy(update={"batch_size": 16})
    scaled = scaled.model_copy(update={"finetune": scaled.finetune.model_copy(update={"fit": fine})})
    found["keys"] = [
        [open_workspace(scaled, folder, Silent()).key(stage), workspace.key(stage), alone.key(stage)]
        for stage in ("dense", "final")
    ]
    return found


CHECKS = (batch_norm, losses, augment, agreement, criteria, training)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    with open_ranks(Launch(devices=2), out) as ranks:
        found = {check.__name__: check(ranks) for check in CHECKS}
        (out / f"{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
