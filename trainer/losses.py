"""What training minimises: Dice and cross-entropy over labelled pixels, cross-entropy over images, and agreement with
a teacher.

For class c with probabilities p and one-hot labels t, summed over the labelled pixels of the whole batch,

    dice_c = (2 sum p t + 1) / (sum p + sum t + 1)          loss = 1 - mean of dice_c over the classes that occur

The 1 (one pixel) keeps a nearly empty class from dominating. Classes without a pixel in the batch are left
out of the mean: their false positives are cross-entropy's to punish. All sums are float32, whatever the logits are.
Source: Milletari et al., "V-Net", 2016, arXiv 1606.04797, without the squares.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.errors import InvariantError

Total = Callable[[Tensor], Tensor]
"""From a sum over this batch to the sum over the batches of all processes that train together, with gradients."""


def this_batch(part: Tensor) -> Tensor:
    """The total where one process trains."""
    return part


class SegmentationLoss(nn.Module):
    """dice * soft Dice loss + cross_entropy * mean cross-entropy, against labels smoothed by `label_smoothing`.

    forward: logits (N, classes, H, W) float, target (N, H, W) int64 -> scalar float32. Pixels with the target
    `ignore_index` change neither value nor gradient. Without a labelled pixel the loss is 0 and so is its gradient.
    total: over what the sums go.
    """

    def __init__(
        self,
        dice: float,
        cross_entropy: float,
        classes: int,
        ignore_index: int,
        label_smoothing: float = 0.0,
        total: Total = this_batch,
    ) -> None:
        super().__init__()
        self.total = total
        self.dice, self.cross_entropy, self.label_smoothing = dice, cross_entropy, label_smoothing
        self.classes, self.ignore_index = classes, ignore_index

    def across(self, total: Total) -> SegmentationLoss:
        """The same loss of the batches of all processes: it is no mean of their losses."""
        return SegmentationLoss(
            self.dice, self.cross_entropy, self.classes, self.ignore_index, self.label_smoothing, total
        )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        _check_shapes(logits, (target.shape[0], self.classes, *target.shape[1:]))
        labelled = target != self.ignore_index
        # torch.where, not a product: an infinite logit on an unlabelled pixel must not turn into nan.
        logits = torch.where(labelled[:, None], logits.float(), 0.0)
        loss = logits.new_zeros(())
        if self.cross_entropy > 0:
            surprise = F.cross_entropy(
                logits,
                target,
                ignore_index=self.ignore_index,
                reduction="sum",
                label_smoothing=self.label_smoothing,
            )
            loss = loss + self.cross_entropy * self.total(surprise) / self.total(labelled.sum()).clamp(min=1)
        if self.dice > 0:
            loss = loss + self.dice * soft_dice_loss(logits, target, self.ignore_index, self.total)
        return loss


class ClassificationLoss(nn.Module):
    """cross_entropy * mean cross-entropy against (1 - s) * one-hot label + s / classes, s = `label_smoothing`.

    forward: logits (N, classes) float, target (N,) int64 -> scalar float32.
    Source of the smoothing: Szegedy et al., "Rethinking the Inception Architecture", 2015, arXiv 1512.00567, section 7.
    """

    def __init__(self, cross_entropy: float, classes: int, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.cross_entropy, self.classes, self.label_smoothing = cross_entropy, classes, label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        _check_shapes(logits, (target.shape[0], self.classes))
        return self.cross_entropy * F.cross_entropy(logits.float(), target, label_smoothing=self.label_smoothing)


def soft_dice_loss(logits: Tensor, target: Tensor, ignore_index: int, total: Total = this_batch) -> Tensor:
    """logits (N, C, H, W) float32, target (N, H, W) int64 in 0..C-1 or `ignore_index` -> scalar in [0, 1)."""
    labelled = (target != ignore_index)[:, None]
    probabilities = torch.where(labelled, logits, 0.0).softmax(dim=1) * labelled
    classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    one_hot = (target[:, None] == classes) & labelled
    axes = (0, 2, 3)
    counts = total(one_hot.sum(axes))
    overlap = total((probabilities * one_hot).sum(axes))
    dice = (2 * overlap + 1) / (total(probabilities.sum(axes)) + counts + 1)
    occurs = counts > 0
    return ((1 - dice) * occurs).sum() / occurs.sum().clamp(min=1)


def distillation(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    valid_mask: Tensor | None = None,
    total: Total = this_batch,
) -> Tensor:
    """T^2 * KL(teacher || student) of the softened class probabilities, mean over the valid pixels (or images).

    student, teacher: logits (N, C, H, W) or (N, C), the teacher's without gradient; valid_mask: the same without the
    axis of classes, bool, all if None. Scalar float32; 0 without a valid pixel. T^2 keeps the gradient's size when T
    changes.
    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531.
    """
    _check_shapes(student, tuple(teacher.shape))
    if valid_mask is None:
        valid_mask = torch.ones_like(student[:, 0], dtype=torch.bool)
    student = torch.where(valid_mask[:, None], student, 0.0)
    teacher = torch.where(valid_mask[:, None], teacher, 0.0)
    wanted = F.log_softmax(teacher.detach().float() / temperature, dim=1)
    given = F.log_softmax(student.float() / temperature, dim=1)
    # Both are 0, hence equal, where not valid: such a pixel adds nothing.
    distance = F.kl_div(given, wanted, reduction="sum", log_target=True)
    return temperature**2 * total(distance) / total(valid_mask.sum()).clamp(min=1)


def _check_shapes(logits: Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(logits.shape) != wanted:
        raise InvariantError(f"logits have shape {tuple(logits.shape)} where {wanted} belongs")
