"""How good a segmentation is, counted over all labelled pixels of a set at once ("micro").

With TP, FP, FN, TN of the foreground (class 1) at the most likely class:

    dice = 2 TP / (2 TP + FP + FN)    iou = TP / (TP + FP + FN)    sensitivity = TP / (TP + FN)
    specificity = TN / (TN + FP)      accuracy = right / all       miou = mean IoU of the classes that occur

`auc` is the area under the ROC curve of the foreground's logit margin. Keeping every pixel's score would take
gigabytes, so scores are counted in 8192 bins (64 KiB a side). Two pixels in one bin count as a tie, so the error is at
most half the share of such pairs: below 1e-3 unless nearly all scores are equal, see `BinnedAUC`.
A ratio of nothing by nothing is None: a set without a foreground pixel has no sensitivity, not a perfect one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from edgeslim.errors import InvariantError

from .task import Scores


class SegmentationMetrics:
    """Accumulates logits and masks image by image; `compute` gives the scores of the whole set.

    Two classes: dice, iou, miou, auc, sensitivity, specificity, accuracy of class 1 against class 0.
    More: dice and miou (means over the classes with a labelled pixel), accuracy, and iou_<class> for each.
    """

    def __init__(self, classes: Sequence[str], ignore_index: int) -> None:
        self.classes, self.ignore_index = tuple(classes), ignore_index
        # Targets were checked when the data was read; torchmetrics' own check sorts every mask.
        self._confusion = MulticlassConfusionMatrix(len(self.classes), ignore_index=ignore_index, validate_args=False)
        self._auc = BinnedAUC() if len(self.classes) == 2 else None

    def update(self, logits: Tensor | NDArray[np.float32], masks: Tensor | NDArray[np.integer]) -> None:
        """Count a batch. logits: (N, C, H, W) float, masks: (N, H, W) integers; torch or numpy, on any device."""
        scores = torch.as_tensor(logits).detach().float().cpu()
        labels = torch.as_tensor(masks).cpu().long()
        wanted = (labels.shape[0], len(self.classes), *labels.shape[1:])
        if tuple(scores.shape) != wanted:
            raise InvariantError(f"logits have shape {tuple(scores.shape)} where {wanted} belongs")
        self._confusion.update(scores.argmax(dim=1), labels)
        if self._auc is not None:
            labelled = labels != self.ignore_index
            self._auc.update((scores[:, 1] - scores[:, 0])[labelled], labels[labelled] == 1)

    def compute(self) -> Scores:
        """The scores by name, in [0, 1]; None where nothing was there to be scored."""
        counts: Tensor = self._confusion.confmat  # (truth, prediction); `compute` warns when nothing came yet
        right = counts.diagonal().double()
        truth, found = counts.sum(dim=1).double(), counts.sum(dim=0).double()
        dice = [_ratio(2 * r, t + f) for r, t, f in zip(right, truth, found)]
        iou = [_ratio(r, t + f - r) for r, t, f in zip(right, truth, found)]
        occurs = [bool(t > 0) for t in truth]
        miou, accuracy = _mean(iou, occurs), _ratio(right.sum(), truth.sum())
        if self._auc is None:
            per_class = {f"iou_{name}": value for name, value in zip(self.classes, iou)}
            return {"dice": _mean(dice, occurs), "miou": miou, "accuracy": accuracy, **per_class}
        return {
            "dice": dice[1],
            "iou": iou[1],
            "miou": miou,
            "auc": self._auc.area(),
            "sensitivity": _ratio(right[1], truth[1]),
            "specificity": _ratio(right[0], truth[0]),
            "accuracy": accuracy,
        }

    def add_up(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replace all counts by `total` of them: the sums over several processes, each with images of its own."""
        self._confusion.confmat = total(self._confusion.confmat)
        if self._auc is not None:
            self._auc.positive, self._auc.negative = total(self._auc.positive), total(self._auc.negative)

    def reset(self) -> None:
        """Forget everything counted."""
        self._confusion.reset()
        if self._auc is not None:
            self._auc.reset()


class BinnedAUC(Metric):
    """Area under the ROC curve of one real score, in constant memory.

    Margins m (any shape, float32) fall into 8192 bins, even in asinh(4 m) up to |m| = 10,000: 0.0007 wide around the
    decision, 0.3 % of m where a net is sure. AUC = P(score of a positive > score of a negative) + P(same bin) / 2.
    """

    full_state_update = False
    positive: Tensor
    negative: Tensor
    BINS = 8192
    LIMIT = 1e4

    def __init__(self) -> None:
        super().__init__()
        for name in ("positive", "negative"):
            self.add_state(name, torch.zeros(self.BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, margins: Tensor, is_positive: Tensor) -> None:
        """Count margins (any shape, float) with their labels (same shape, bool). A nan counts as the lowest."""
        reach = torch.asinh(torch.tensor(4 * self.LIMIT))
        clipped = margins.float().nan_to_num(nan=-self.LIMIT).clamp(-self.LIMIT, self.LIMIT)
        place = torch.asinh(4 * clipped) / reach
        bins = ((place + 1) / 2 * self.BINS).long().clamp(0, self.BINS - 1)
        self.positive += torch.bincount(bins[is_positive], minlength=self.BINS)
        self.negative += torch.bincount(bins[~is_positive], minlength=self.BINS)

    def area(self) -> float | None:
        """The area in [0, 1], or None if positives or negatives are missing."""
        positive, negative = self.positive.double(), self.negative.double()
        below = negative.cumsum(0) - negative
        wins = (positive * (below + negative / 2)).sum()
        return _ratio(wins, positive.sum() * negative.sum())

    def compute(self) -> Tensor:
        """torchmetrics' form of `area`: scalar float64, nan where that is None."""
        area = self.area()
        return torch.tensor(float("nan") if area is None else area, dtype=torch.float64)


def _ratio(part: Tensor, whole: Tensor) -> float | None:
    return float(part / whole) if whole > 0 else None


def _mean(values: Sequence[float | None], occurs: Sequence[bool]) -> float | None:
    """Mean over the classes that occur; those always have a value."""
    present = [v for v, there in zip(values, occurs) if there and v is not None]
    return sum(present) / len(present) if present else None
