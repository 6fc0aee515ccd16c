"""The dense net as teacher of the pruned one, on the images as they are or on mixtures of two.

    w x + (1 - w) y                         one half of a batch, w uniform in [0, 1] for every image
    x with a rectangle of y in its place    the other half, its share of the area uniform in [0, 1]

y is another image of the batch. Mixtures have no label; what they are is what the teacher says. A teacher that knows
its training images by heart has little to say of them beside their labels, and of mixtures a lot.

Source: Hinton et al. 2015, arXiv 1503.02531; mixtures: Zhang et al. 2018, arXiv 1710.09412, and Yun et al. 2019,
arXiv 1905.04899, whose labels are mixed as the images are; without labels, by a teacher: Beyer et al. 2022,
arXiv 2106.05237.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from .losses import Total, distillation, this_batch
from .recipe import DistillSection
from .task import Batch, Step, Task, Term


def teacher_term(teacher: nn.Module, section: DistillSection, ignore_index: int, total: Total = this_batch) -> Term:
    """weight * T^2 * KL(teacher || student) over what is labelled, as a term of the student's loss.

    `teacher` belongs to the term from now on: it answers in eval mode, without gradients, on the student's device.
    total: over what the sums go.
    """
    teacher.eval()

    def term(step: Step) -> Tensor:
        teacher.to(step.images.device)  # moves nothing after the first step
        with torch.no_grad(), step.autocast():
            wanted = teacher(step.images)
        labelled = step.targets != ignore_index
        return section.weight * distillation(step.logits, wanted, section.temperature, labelled, total)

    return term


def on_mixtures(task: Task) -> Task:
    """The same images mixed of two, and no loss but a teacher's. Of several processes each mixes its own."""

    def prepare(images: Tensor, targets: Tensor) -> Batch:
        images, targets = task.prepare(images, targets)
        return mixed(images), targets

    def nothing(logits: Tensor, targets: Tensor) -> Tensor:
        return logits.new_zeros(())

    return dataclasses.replace(task, prepare=prepare, loss=nothing)


def mixed(images: Tensor) -> Tensor:
    """Mixtures of the images of a batch, by torch's random numbers: (N, C, H, W) float, N of any size."""
    count, _, height, width = images.shape
    others = images.roll(int(torch.randint(1, max(count, 2), ())), dims=0)
    weights = torch.rand(count, 1, 1, 1).to(images)
    sums = weights * images + (1 - weights) * others
    side = math.sqrt(float(torch.rand(())))
    tall, wide = round(side * height), round(side * width)
    top = int(torch.randint(height - tall + 1, ()))
    left = int(torch.randint(width - wide + 1, ()))
    half = count // 2
    sums[half:] = images[half:]
    sums[half:, :, top : top + tall, left : left + wide] = others[half:, :, top : top + tall, left : left + wide]
    return sums
