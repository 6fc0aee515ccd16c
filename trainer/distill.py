"""The dense net as teacher of the pruned one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .losses import Total, distillation, this_batch
from .recipe import DistillSection
from .task import Step, Term


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
