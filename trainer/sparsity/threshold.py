"""The largest threshold under which the loss stays within a bound.

    t* = max { t : L(w * [|w| > t]) <= (1 + delta) * L(w) }        found by bisection over t

The thresholds are the magnitudes that occur, so every step of the bisection prunes something else and D distinct
magnitudes take at most ceil(log2(D)) + 2 evaluations of the loss. Equal magnitudes go together. As everywhere in this
package the largest weight of every kernel stays.

The loss need not grow with t, and then a bisection does not see every threshold. What is returned has always been
measured: the largest threshold *tried* whose loss is within the bound. Larger ones that nobody tried may be within it
too, and smaller ones may break it.

Source: Barth and von Petersenn, "Efficient compression of neural networks and datasets", arXiv 2505.17469, who prune by
a binary search for the threshold under a tolerance on the loss. Bisecting over occurring magnitudes, trying the
largest first, and what is returned where the loss is not monotone are edgeslim's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeslim.errors import ConfigError, TrainingError

from .kernels import find_kernels
from .magnitude import largest_of_each, magnitudes, pattern_of
from .pattern import Pattern, apply_pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One evaluation: all weights with |w| <= threshold pruned, `pruned` of them, and the loss then."""

    threshold: float
    pruned: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdSearch:
    """The pattern found, its threshold (None where nothing may go), the bound, and every evaluation in order."""

    pattern: Pattern
    threshold: float | None
    unpruned_loss: float
    limit: float
    trials: tuple[Trial, ...]


def threshold_pattern(module: nn.Module, loss: Callable[[nn.Module], float], delta: float) -> ThresholdSearch:
    """Search the largest threshold with loss <= (1 + delta) * unpruned loss; see the module docstring.

    module: any, its kernels float and finite; it is not changed, `loss` sees a copy. loss: a number from a module, on
    validation or calibration data, the same for the same weights. delta: at least 0.
    Weights that are zero already are part of the pattern. Raises ConfigError for delta and for kernels that are not
    finite, TrainingError for an unpruned loss that is not finite or below 0 (of which a share means nothing).
    """
    if isinstance(delta, bool) or not isinstance(delta, (int, float)) or not 0.0 <= delta < math.inf:
        raise ConfigError(f"delta is {delta!r}; it must be at least 0", "0.05 lets the loss grow by 5 %")
    kernels = find_kernels(module)
    probe = copy.deepcopy(module)
    start = float(loss(probe))
    if not 0.0 <= start < math.inf:
        raise TrainingError(
            f"the loss of the unpruned net is {start}", "the bound is a share of it: give a loss that is at least 0"
        )
    limit = (1.0 + delta) * start
    if not kernels.found:
        empty = Pattern(keep={}, notes=(*kernels.notes, "there is no kernel to prune"))
        return ThresholdSearch(pattern=empty, threshold=None, unpruned_loss=start, limit=limit, trials=())
    sizes = magnitudes(kernels.found)
    spared = largest_of_each(kernels.found, sizes)
    steps = torch.unique(sizes[~spared])
    trials: list[Trial] = []

    def keep_above(index: int) -> Tensor:
        return spared | (sizes > steps[index]) if index >= 0 else spared | (sizes > 0)

    def within(index: int) -> bool:
        pattern = pattern_of(kernels.found, keep_above(index))
        probe.load_state_dict(module.state_dict())
        apply_pattern(probe, pattern)
        value = float(loss(probe))
        trials.append(Trial(threshold=float(steps[index]), pruned=pattern.pruned, loss=value))
        return value <= limit  # false for NaN

    found = _bisect(len(steps), within)
    notes = list(kernels.notes)
    if found < 0:
        notes.append(f"no threshold keeps the loss within {limit:.6g}: nothing was pruned")
    elif found == len(steps) - 1:
        notes.append("the loss allows any threshold: of every kernel only the largest weight stays")
    return ThresholdSearch(
        pattern=pattern_of(kernels.found, keep_above(found), tuple(notes)),
        threshold=float(steps[found]) if found >= 0 else None,
        unpruned_loss=start,
        limit=limit,
        trials=tuple(trials),
    )


def _bisect(count: int, within: Callable[[int], bool]) -> int:
    """The largest index tried that is within, -1 where none is."""
    if not count:
        return -1
    if within(count - 1):
        return count - 1
    good, bad = -1, count - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if within(middle):
            good = middle
        else:
            bad = middle
    return good
