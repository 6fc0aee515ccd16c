"""The dense net as teacher of the pruned one."""

from __future__ import annotations

from torch import Tensor, nn

from .fit import Teacher
from .losses import distillation
from .recipe import DistillSection


def dense_teacher(module: nn.Module, section: DistillSection, ignore_index: int) -> Teacher:
    """A teacher whose loss is weight * T^2 * KL(teacher || student) over the labelled pixels."""

    def loss(student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
        return section.weight * distillation(student, teacher, section.temperature, masks != ignore_index)

    return Teacher(module=module, loss=loss)
