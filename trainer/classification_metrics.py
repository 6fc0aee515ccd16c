"""How good a classification is, counted over a set of images.

    accuracy = right / all      top5 = truth among the five highest logits / all      accuracy_<class> = right / its own

`top5` where there are more than 10 classes; accuracies of single classes where there are at most 100. A logit that is
equal to the truth's counts as higher, so a net that answers the same for all classes is wrong, and so is one that
answers nan. A ratio of nothing by nothing is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeslim.errors import InvariantError

from .task import Scores

TOP = 5
MOST_CLASSES_LISTED = 100


class ClassificationMetrics:
    """Accumulates logits and labels batch by batch; `compute` gives the scores of the whole set."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._all, self._right, self._near = (np.zeros(len(self.classes), np.int64) for _ in range(3))

    def update(self, logits: Tensor | NDArray[np.float32], labels: Tensor | NDArray[np.integer]) -> None:
        """Count a batch. logits: (N, classes) float, labels: (N,) integers below `classes`; torch or numpy."""
        scores = torch.as_tensor(logits).detach().float().cpu().numpy()
        truth = torch.as_tensor(labels).cpu().long().numpy()
        if scores.shape != (len(truth), len(self.classes)):
            wanted = (len(truth), len(self.classes))
            raise InvariantError(f"logits have shape {scores.shape} where {wanted} belongs")
        own = np.take_along_axis(scores, truth[:, None], axis=1)
        better = (~(scores < own)).sum(axis=1) - 1  # of nan nothing is less, so all of its row counts
        for counts, chosen in ((self._all, better >= 0), (self._right, better < 1), (self._near, better < TOP)):
            counts += np.bincount(truth[chosen], minlength=len(self.classes))

    def add_up(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replace all counts by `total` of them: the sums over several processes, each with images of its own."""
        counts = torch.from_numpy(np.stack([self._all, self._right, self._near]))
        self._all, self._right, self._near = total(counts).numpy()

    def compute(self) -> Scores:
        """The scores by name, in [0, 1]; None where nothing was there to be scored."""
        total = int(self._all.sum())
        scores: Scores = {"accuracy": _ratio(int(self._right.sum()), total)}
        if len(self.classes) > 10:
            scores["top5"] = _ratio(int(self._near.sum()), total)
        if len(self.classes) <= MOST_CLASSES_LISTED:
            for name, right, count in zip(self.classes, self._right.tolist(), self._all.tolist()):
                scores[f"accuracy_{name}"] = _ratio(right, count)
        return scores


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
