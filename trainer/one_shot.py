"""Cut a net once, without training: score, choose, silence, correct, remove.

Scores come from the feature maps of calibration inputs where there are some, from the weights otherwise. What was cut
is then made up for by least squares (recovery), and only kept corrected if the outputs of the whole net come nearer
to what they were. A fifth of the inputs takes no part in any of this: how far the outputs are from the original's is
reported on these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.errors import ConfigError, InvariantError
from edgeslim.exporter.channels import ChannelMap, analyze
from edgeslim.exporter.foreign.feeds import Arrays, InputSpec
from edgeslim.exporter.passes.remove_channels import remove_channels
from edgeslim.exporter.plan import plan_from_cut
from edgeslim.exporter.weights import with_weights
from edgeslim.progress import Progress

from .budget import WidthLimits, build_budget, spare_one
from .budget.reached import Reached
from .budget.targets import parse_target
from .criteria import criterion
from .recipe import BudgetSpec
from .recipe_target import TargetBudget
from .recovery import FEWEST_INPUTS, Correction, Part, distance, of_part, recover


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be cut beyond dead channels."""

    budget: BudgetSpec
    limits: WidthLimits
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShot:
    """A pruned net: masked and compact, what corrected it, and how far its outputs are from the original's.

    uncorrected: the same without correction. unseen: on how many calibration inputs that nothing was fitted to or
    chosen by; 0 where there are too few to spare one, or none: then on all, or on random ones.
    """

    masked: ir.Model
    compact: ir.Model
    units: int
    corrections: tuple[Correction, ...]
    error: float
    uncorrected: float
    unseen: int
    reached: Reached | None = None
    """What the plan takes on a device, where that was asked for."""


def cut_once(
    model: ir.Model, wish: Wish, specs: tuple[InputSpec, ...], probes: Sequence[Arrays], calibration: Sequence[Arrays]
) -> OneShot:
    """Choose, silence, correct, remove.

    probes: full sets of random graph inputs, the first at the size at which MACs are counted; calibration: real ones,
    may be empty. Raises BudgetError, ConfigError.
    """
    channels = analyze(model)
    if len(specs) > 1 and wish.budget.name != "ratio":
        raise ConfigError("targets are for nets with one input", "give ratio instead of target")
    shape = _counted_at(wish.budget, specs[0], probes, calibration)
    scored = _Scored(model, channels)
    images = _images(specs, of_part(calibration, Part.FIT, Part.CHOOSE))
    score = criterion("reconstruction" if images is not None else "l1").score(
        scored, images if images is not None else np.empty(0, np.float32)
    )
    cut, reached = frozenset[int](), None
    if channels.families or wish.budget.name != "ratio":  # a target is met or missed all the same
        budget = build_budget(wish.budget, wish.limits, channels, shape, takes_frames=False, progress=wish.progress)
        cut = spare_one(channels, budget.select(channels, score), score)
        reached = budget.reached
    plan = plan_from_cut(channels, cut)
    masked = with_weights(model, {name: plan.mask(name, _weight(model, name)) for name in plan.initializers})
    unseen = of_part(calibration, Part.REPORT) or probes
    plain = error = distance(masked, model, unseen)
    best, corrections = masked, tuple[Correction, ...]()
    if calibration and cut:
        recovery = recover(model, masked, channels, cut, calibration)
        (gain,) = recovery.gains
        best, corrections, error = with_weights(masked, recovery.changes), gain.corrections, gain.after
    compact = remove_channels(best, channels, cut) if cut else best
    for old, new in zip(model.graph.outputs, compact.graph.outputs):  # outputs keep their widths
        new.shape, new.type = old.shape, old.type
    return OneShot(
        masked=best,
        compact=compact,
        units=len(cut),
        corrections=corrections,
        error=error,
        uncorrected=plain,
        unseen=len(unseen) if len(calibration) >= FEWEST_INPUTS else 0,
        reached=reached,
    )


def _counted_at(
    budget: BudgetSpec, lead: InputSpec, probes: Sequence[Arrays], calibration: Sequence[Arrays]
) -> tuple[int, ...]:
    """The shape of the input at which a budget counts and times: for a target that of the calibration inputs, if any.

    Raises ConfigError where the file leaves the size open, nothing else tells it, and the target depends on it.
    """
    if isinstance(budget, TargetBudget):
        if calibration:
            return tuple(calibration[0][lead.name].shape)
        sized = [limit for limit in parse_target(budget.target) if limit.of_a_size]
        if sized and any(not isinstance(side, int) for side in lead.shape[1:]):
            raise ConfigError(
                f"{sized[0]} is of one size of the input, and {lead.name} takes any: "
                f"({', '.join(str(side) or '?' for side in lead.shape)})",
                "give calibration inputs of the size that the camera sends, or a file with a fixed size",
            )
    return tuple(probes[0][lead.name].shape)


@dataclass(frozen=True, slots=True)
class _Scored:
    """What criteria look at."""

    graph: ir.Model
    channels: ChannelMap


def _images(specs: tuple[InputSpec, ...], calibration: Sequence[Arrays]) -> NDArray[np.float32] | None:
    """Calibration images for a criterion that looks at feature maps; None for nets that do not take them one by one."""
    lead = specs[0]
    one_by_one = bool(lead.shape) and (lead.shape[0] == 1 or not isinstance(lead.shape[0], int))
    if not calibration or len(specs) > 1 or lead.dtype != np.float32 or not one_by_one:
        return None
    return np.concatenate([np.asarray(a[lead.name], np.float32) for a in calibration])


def _weight(model: ir.Model, name: str) -> NDArray[np.generic]:
    value = model.graph.initializers[name].const_value
    if value is None:
        raise InvariantError(f"initializer {name} has no value")
    return value.numpy()
