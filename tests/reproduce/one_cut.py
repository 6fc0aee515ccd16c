"""A given CIFAR-10 net, cut once by the API: what is left right away, mended, and after a short fine-tuning.

    edgeslim.prune -> "cut" -> recovery -> "mended"          accuracy right away
                        |                     |
                   fine-tuning           fine-tuning
                        |                     |
                  "cut, trained"       "mended, trained"     accuracy after some epochs of the compact net

All four are the compact module's on the test images. A seed moves the calibration images, the order of the batches,
their augmentation, and the choices of the criterion `random`. Nets that start their fine-tuning equal end equal, so
that is done once for all criteria that cut the same.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from torch import nn
from torch.nn import functional as F

import edgeslim
from edgeslim.exporter.cost import count_macs
from edgeslim.exporter.trace import trace
from edgeslim.trainer.criteria import build_criterion
from edgeslim.trainer.distill import on_mixtures, teacher_term
from edgeslim.trainer.fit import fit
from edgeslim.trainer.pruned import PrunedModel
from edgeslim.trainer.recipe import DistillSection, FitSection
from edgeslim.trainer.recipe_criteria import CriterionSpec
from edgeslim.trainer.recovery import image_batches

from .case import Case, Place
from .cifar_data import Cifar, given_net, open_cifar
from .notes import Log

IMAGES = 1024
"""Of calibration."""
FIT = FitSection(
    steps=234,  # of 128 images: 3 epochs of 10,000
    batch_size=128,
    optimizer="sgd",
    lr=1e-2,
    weight_decay=5e-4,
    warmup_steps=20,
    clip_norm=None,
    precision="bf16-mixed",
    evaluate_every=1_000_000,
)

SPEC: TypeAdapter[CriterionSpec] = TypeAdapter(CriterionSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What a run depends on.

    criterion: as in a recipe.  wish: `prune`'s target or ratio.  images: of calibration.  trained: which of "cut" and
    "mended" are fine-tuned.  tested: so many test images, all where None.
    """

    model: str = "resnet20"
    criterion: Mapping[str, Any]
    wish: Mapping[str, Any]
    recovery: Sequence[str] = ()
    images: int = IMAGES
    trained: Sequence[str] = ("cut", "mended")
    fit: FitSection = FIT
    distill: DistillSection | None = None
    tested: int | None = None


def cut_case(name: str, cut: Cut) -> Case:
    """A case with the accuracies of the module docstring in percent, and `macs` as a share of the dense net's."""
    settings = asdict(cut) | {"fit": None, "distill": None}
    if cut.trained:
        settings["fit"] = cut.fit.model_dump()
        settings["distill"] = None if cut.distill is None else cut.distill.model_dump()
    return Case(name=name, settings=settings, run=partial(run_cut, cut))


def run_cut(cut: Cut, seed: int, place: Place) -> dict[str, float]:
    """The numbers of one seed."""
    return measure(cut, seed, open_cifar(place.data, seed, cut.tested), place)


def measure(cut: Cut, seed: int, cifar: Cifar, place: Place) -> dict[str, float]:
    """The numbers of one seed on these images."""
    log = Log(f"{cut.model}, {cut.criterion['name']}, seed {seed}")
    dense = given_net(place.data, cut.model)
    batches = cifar.calibration(cut.images)
    chosen = dict(cut.criterion) | ({"seed": seed} if cut.criterion["name"] == "random" else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about itself
        pruned = edgeslim.prune(
            dense, batches[0][0][:2], criterion=build_criterion(SPEC.validate_python(chosen)),
            calibration=batches, loss=F.cross_entropy, recovery=(), **cut.wish,
        )  # fmt: skip
        forms = {"cut": copy.deepcopy(pruned.compact())}
        if cut.recovery:
            graph = PrunedModel.from_module(dense, batches[0][0][:2]).graph
            images = np.concatenate([np.asarray(images.numpy(), np.float32) for images, _ in batches])
            pruned.recover(graph, image_batches(graph, images), cut.recovery)
            forms["mended"] = pruned.compact()
        shape = batches[0][0][:1]
        macs = count_macs(trace(forms["cut"], shape), tuple(shape.shape))
        numbers = {"macs": macs / count_macs(pruned.channels.model, tuple(shape.shape))}
    numbers["parameters"] = float(sum(p.numel() for p in forms["cut"].parameters()))
    for form, net in forms.items():
        numbers[form] = cifar.accuracy(net)
        if form in cut.trained:
            log.note(f"{form}: {numbers[form]:.2f}")
            _finetune(net, dense, cut, seed, cifar, place.work / "fine-tuned")
            numbers[f"{form}, trained"] = cifar.accuracy(net)
    log.note(", ".join(f"{name}: {value:.2f}" for name, value in numbers.items()))
    return numbers


def _finetune(small: nn.Module, dense: nn.Module, cut: Cut, seed: int, cifar: Cifar, directory: Path) -> None:
    """Train `small` in place, with the dense net as teacher where there is one."""
    key = hashlib.sha256(f"{cut.fit.model_dump_json()} {cut.distill} {seed} {len(cifar.test)}".encode())
    for tensor in small.state_dict().values():
        key.update(str(tuple(tensor.shape)).encode() + tensor.numpy().tobytes())
    terms = {} if cut.distill is None else {"teacher": teacher_term(dense, cut.distill, cifar.task.ignore_index)}
    task = on_mixtures(cifar.task) if cut.distill is not None and cut.distill.mixed else cifar.task
    fit(
        small, task, cut.fit, name="final", seed=seed, key=key.hexdigest(), terms=terms,
        directory=directory / key.hexdigest()[:16],
    )  # fmt: skip
