"""What a net's gradients are taken of, for criteria that look at them.

With targets and a loss of the task's own: that loss. Without them one that needs neither, the squared norm of the
logits about their mean,

    mean over images and positions of sum_c (z_c - mean_c z)^2          of each output; with one channel, of z itself

whose gradient says how much a weight does to what the net answers, whatever the right answer would be.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeslim.errors import ConfigError, DataError, TrainingError, first_line
from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.trace import flatten_outputs

from .pruned import PrunedModel

BATCH = 8
"""Images per gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A loss and the targets that belong to the images, in their order; or neither.

    loss: (the net's outputs, targets of a batch) -> scalar.  targets: (N, ...).
    """

    loss: Callable[..., Tensor] | None = None
    targets: Tensor | None = None


NO_LESSON = Lesson()


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """A net in front of a lesson: what criteria see, gradients included."""

    net: PrunedModel
    lesson: Lesson

    @property
    def graph(self) -> ir.Model:
        """The traced graph with the masked net's weights."""
        return self.net.graph

    @property
    def channels(self) -> ChannelMap:
        """The analysis."""
        return self.net.channels

    def gradients(
        self, images: NDArray[np.float32], steps: int | None = None, rate: float = 0.0
    ) -> Iterator[Mapping[str, NDArray[np.float64]]]:
        """Yield dloss/dparameter by the parameters' names, batch by batch, of a copy of the net in eval mode.

        images: (N, C, H, W) float32.  steps: so many batches, from the beginning again where they end; each once where
        None.  rate: of a step of gradient descent on the copy after each batch.
        Raises DataError for images that the net does not take, ConfigError for a loss that does not take what the net
        answers, TrainingError for one that is not finite.
        """
        module = copy.deepcopy(self.net.module).eval()
        parameters = {n: p for n, p in module.named_parameters(remove_duplicate=False) if p.is_floating_point()}
        unique = list({id(p): p.requires_grad_() for p in parameters.values()}.values())
        starts = range(0, len(images), BATCH)
        for start in starts if steps is None else itertools.islice(itertools.cycle(starts), steps):
            batch = torch.from_numpy(np.array(images[start : start + BATCH]))
            try:
                outputs = module(batch)
            except Exception as error:  # a user's forward fails in any way it likes
                raise DataError(
                    f"the net does not run on calibration images of shape {tuple(batch.shape)}: {first_line(error)}",
                    "give images of a size that the net takes",
                ) from error
            loss = self._loss(outputs, start)
            found = torch.autograd.grad(loss, unique, allow_unused=True)
            by_tensor = {id(p): g for p, g in zip(unique, found) if g is not None}
            yield {name: by_tensor[id(p)].double().numpy() for name, p in parameters.items() if id(p) in by_tensor}
            with torch.no_grad():
                for parameter, gradient in zip(unique, found):
                    if rate and gradient is not None:
                        parameter -= rate * gradient

    def _loss(self, outputs: object, start: int) -> Tensor:
        targets, own = self.lesson.targets, self.lesson.loss
        if own is None or targets is None:
            loss = centred_norm(outputs)
        else:
            try:
                loss = own(outputs, targets[start : start + BATCH])
            except Exception as error:  # a user's loss fails in any way it likes
                raise ConfigError(
                    f"the loss fails on calibration images from number {start}: {first_line(error)}",
                    "it is called as loss(outputs, targets)",
                ) from error
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            seen = f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise ConfigError(f"the loss is {seen} without a gradient, or no scalar", "return a scalar with gradients")
        if not bool(loss.isfinite().all()):
            raise TrainingError(
                f"the loss of calibration images from number {start} is {float(loss.detach())}",
                "look at those images, and at the net's weights",
            )
        return loss.reshape(())


def centred_norm(outputs: object) -> Tensor:
    """The loss that needs no targets, see the module docstring; a scalar with gradients."""
    total = torch.zeros(())
    for logits in flatten_outputs(outputs):
        if logits.is_floating_point():
            several = logits.ndim > 1 and logits.shape[1] > 1
            centred = logits - logits.mean(1, keepdim=True) if several else logits
            total = total + (centred.square().sum(1) if several else centred.square()).mean()
    return total
