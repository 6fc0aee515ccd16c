"""The public verb for people with a training loop of their own.

pruned = prune(net, example, ratio=0.5)            cut, masked, with plan and coverage
small = pruned.compact()                           fine-tune this
export(pruned, "out.bundle")                       ship that
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeslim.errors import ConfigError, first_line
from edgeslim.exporter.trace import check_precision
from edgeslim.progress import Progress

from .budget import WidthLimits, build_budget, parse_wish
from .criteria import Criterion
from .criteria import criterion as criterion_of
from .lesson import NO_LESSON, Lesson
from .pruned import PrunedModel
from .recovery import check_methods, image_batches
from .schedules import Iterative, Scoring


def prune(
    module: nn.Module,
    example_input: torch.Tensor,
    *,
    ratio: float | None = None,
    target: str | None = None,
    criterion: str | Criterion | None = None,
    recovery: Sequence[str] | None = None,
    calibration: Iterable[torch.Tensor] | Iterable[tuple[torch.Tensor, torch.Tensor]] | None = None,
    loss: Callable[..., torch.Tensor] | None = None,
    width_multiple: int = 1,
    min_width: int = 1,
    min_share: float | None = None,
    device: str = "cpu:1",
    profile: str | os.PathLike[str] | None = None,
    allow_foreign_profile: bool = False,
    progress: Progress | None = None,
) -> PrunedModel:
    """Analyse `module`, choose what to cut, and return it masked, with its plan.

    example_input: (N, C, H, W) float, normalised.  ratio: fraction of every family's channels to cut, in (0, 1).
    target: what the net may take, instead of `ratio`: "latency=8ms", "latency=0.5x", "macs=0.5x,memory<64MB"; see
    `budget.targets`. A latency is measured on `device`: "cpu:N" is ONNX Runtime on this CPU with N threads. The net is
    timed as a camera feeds it, with frames of the example's size; what it reached is in `PrunedModel.reached`.
    profile: file of what was measured of devices before, one in the user's cache where absent.  allow_foreign_profile:
    plan by the profile of a device that is not here.  progress: who hears of what takes long.
    calibration: real images, batches like `example_input`, or pairs of these and targets as a loader gives; some
    hundred images are good.
    criterion: one of `trainer.criteria.CRITERIA` by its name, or an object like them; "reconstruction" (what the
    layers that read a channel cannot make up for) where there is calibration, "l1" otherwise.
    recovery: what makes up for the cut without training, of "batch_norm", "twins", "least_squares", in that order;
    least squares where there is calibration, nothing otherwise; what it bought is in `PrunedModel.recovery`.
    loss: called as loss(outputs, targets), for a criterion that looks at gradients; calibration must have targets
    then. Without it gradients are those of a loss that needs none, see `lesson`.
    width_multiple, min_width: which widths are useful on the device.  min_share: of every family, that stays under a
    target; a quarter where absent.
    `module` itself is not changed. Raises ConfigError for an option, UnsupportedGraphError for a net that cannot be
    run or traced, BudgetError for a target out of reach, DeviceError for a device that is not here or does not settle.
    """
    budget = parse_wish(
        ratio, target, min_share, device=device, profile=profile, allow_foreign_profile=allow_foreign_profile
    )
    for name, value in (("width_multiple", width_multiple), ("min_width", min_width)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} is {value!r}; it must be a whole number from 1", "8 or 16 suit most CPUs")
    if not isinstance(module, nn.Module) or not isinstance(example_input, torch.Tensor):
        seen = type(module).__name__, type(example_input).__name__
        raise ConfigError(
            f"prune was given {seen[0]} and {seen[1]}", "give a torch.nn.Module and an image batch, a tensor"
        )
    score = criterion_of(criterion or ("l1" if calibration is None else "reconstruction"))
    methods = recovery if recovery is not None else () if calibration is None else ("least_squares",)
    check_methods(methods)
    check_precision(module, example_input)
    images, lesson = _calibration(calibration, example_input, score, methods, loss)
    net = PrunedModel.from_module(module, example_input)
    if net.channels.families or budget.name != "ratio":  # a target is met or missed all the same
        limits = WidthLimits(multiple=width_multiple, minimum=min_width)
        shape = (1, *net.input_shape[1:])
        image = len(shape) == 4  # what else there is no camera sends
        chosen = build_budget(budget, limits, net.channels, shape, takes_frames=image, progress=progress)
        dense = net.graph
        Iterative().prune(net, Scoring(criterion=score, images=images, lesson=lesson), chosen)
        net.reached = chosen.reached
        if methods and net.cut:
            net.recover(dense, image_batches(dense, images), methods)
    return net


def _calibration(
    calibration: object,
    example: torch.Tensor,
    criterion: Criterion,
    methods: Sequence[str],
    loss: Callable[..., torch.Tensor] | None,
) -> tuple[NDArray[np.float32], Lesson]:
    """The images (N, C, H, W), and what gradients are taken of."""
    if loss is not None and not callable(loss):
        raise ConfigError(f"loss is a {type(loss).__name__}", "give a function of outputs and targets")
    if calibration is None:
        needs = [] if criterion.looks_at == "weights" else [f"criterion {criterion.name} looks at {criterion.looks_at}"]
        if needs := needs + [f"recovery {name} looks at feature maps" for name in methods]:
            raise ConfigError(needs[0], "give calibration=batches of real images")
        calibration = [example]
        loss = None
    if not isinstance(calibration, Iterable):
        raise ConfigError(f"calibration is a {type(calibration).__name__}", "give batches of images, tensors")
    batches = [calibration] if isinstance(calibration, torch.Tensor) else list(calibration)
    if not sum(_count(batch) for batch in batches):
        raise ConfigError("calibration is empty", "give at least one image")
    if loss is None:  # a loader's targets are of no use then
        return _images([batch[0] if _is_pair(batch) else batch for batch in batches], example), NO_LESSON
    for number, batch in enumerate(batches):
        if not _is_pair(batch) or not isinstance(batch[1], torch.Tensor) or batch[0].shape[:1] != batch[1].shape[:1]:
            raise ConfigError(
                f"calibration batch {number} is {type(batch).__name__}; with a loss it is (images, targets), as many "
                "of one as of the other",
                "give pairs of tensors (N, C, H, W) and (N, ...), or leave out loss",
            )
    try:
        targets = torch.cat([target.detach().cpu() for _, target in batches])
    except RuntimeError as error:
        raise ConfigError(
            f"targets of calibration do not fit together: {first_line(error)}", "give targets of one shape and dtype"
        ) from error
    return _images([images for images, _ in batches], example), Lesson(loss=loss, targets=targets)


def _is_pair(batch: object) -> TypeGuard[tuple[torch.Tensor, object]]:
    """Whether this is what a loader of labelled images gives."""
    return isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[0], torch.Tensor)


def _count(batch: object) -> int:
    """How many images a batch holds, by itself or as the first of a pair; 1 for what is said to be no batch later."""
    images = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    return len(images) if isinstance(images, torch.Tensor) and images.ndim else 1


def _images(batches: Sequence[torch.Tensor], example: torch.Tensor) -> NDArray[np.float32]:
    for number, batch in enumerate(batches):
        fits = isinstance(batch, torch.Tensor) and batch.ndim == example.ndim and batch.shape[1] == example.shape[1]
        if not fits or batch.shape[1:] != batches[0].shape[1:]:
            seen = tuple(batch.shape) if isinstance(batch, torch.Tensor) else type(batch).__name__
            raise ConfigError(
                f"calibration batch {number} is {seen}, not a batch of images of one size, like {tuple(example.shape)}",
                "give tensors (N, C, H, W), or pairs (images, targets)",
            )
        if not bool(batch.isfinite().all()):
            raise ConfigError(f"calibration batch {number} holds numbers that are not finite", "look at those images")
    return np.asarray(np.concatenate([batch.detach().float().cpu().numpy() for batch in batches]), np.float32)
