"""The pruning plan: which indices of which parameters stay. JSON in, JSON out, no pickle.

A plan speaks of units per family (for people and planners) and of indices per initializer axis (so that it can be
replayed on a fresh module or graph without repeating the analysis). Both are derived from one set of cut units.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import PlanError
from edgeslim.schema import SchemaError, dumps, loads

from .channels import ChannelMap

if TYPE_CHECKING:
    from torch import nn

SCHEMA = 1
Module = TypeVar("Module", bound="nn.Module")


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyPlan:
    """Which units of a family stay: `keep` holds their positions in the family, ascending."""

    name: str
    width: int
    keep: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_keep(self.keep, self.width, f"family {self.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisPlan:
    """Which indices of one axis stay. masked: the others are zero in the masked model (a producer's axis)."""

    axis: int
    width: int
    keep: tuple[int, ...]
    masked: bool

    def __post_init__(self) -> None:
        if self.axis < 0:
            raise ValueError(f"axis {self.axis}; axes are counted from 0")
        _check_keep(self.keep, self.width, f"axis {self.axis}")

    @property
    def cut(self) -> tuple[int, ...]:
        """The indices that go, ascending."""
        kept = set(self.keep)
        return tuple(i for i in range(self.width) if i not in kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """What stays of a model. Made by `plan_from_cut`, read by `PruningPlan.from_json`."""

    schema: int = SCHEMA
    families: tuple[FamilyPlan, ...]
    initializers: Mapping[str, tuple[AxisPlan, ...]]

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"plan schema {self.schema}, this edgeslim reads {SCHEMA}")
        for name, axes in self.initializers.items():
            if len({axis.axis for axis in axes}) < len(axes):
                raise ValueError(f"{name} is cut twice along one axis")

    def to_json(self) -> str:
        """The plan as text, stable to the byte."""
        return dumps(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> PruningPlan:
        """Read a plan. Raises PlanError naming the JSON path of the first mistake."""
        try:
            return loads(cls, text)
        except SchemaError as error:
            raise PlanError(f"this is not a pruning plan: {error}", "use a plan.json written by edgeslim") from error

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise PlanError naming the first parameter of the plan that a model of these shapes lacks."""
        for name, axes in self.initializers.items():
            shape = shapes.get(name)
            if shape is None:
                raise PlanError(f"the plan cuts {name}, which this model lacks", "use the plan of this model")
            for axis in axes:
                if axis.axis >= len(shape) or shape[axis.axis] != axis.width:
                    raise PlanError(
                        f"the plan cuts {name} along axis {axis.axis} of width {axis.width}, here its shape is {shape}",
                        "use the plan of this model, or build the model with the same arguments",
                    )

    def apply(self, module: Module) -> Module:
        """Take the cut channels out of a torch module in place and return it: a fresh instance of the net's class.

        Its weights can then be loaded from a state of the compact net. Raises PlanError if the plan belongs to
        another net.
        """
        from .shrink import shrink_module  # torch, which reading and writing plans does without

        shrink_module(module, self)
        return module

    def shrink(self, name: str, weight: NDArray[np.generic]) -> NDArray[np.generic]:
        """The part of an initializer that stays: every planned axis from its width to len(keep)."""
        for axis in self.initializers.get(name, ()):
            weight = weight.take(axis.keep, axis.axis)
        return weight

    def mask(self, name: str, weight: NDArray[np.generic]) -> NDArray[np.generic]:
        """A copy of an initializer with the cut indices of its masked axes set to zero."""
        weight = weight.copy()
        for axis in self.initializers.get(name, ()):
            if axis.masked:
                weight[(slice(None),) * axis.axis + (list(axis.cut),)] = 0
        return weight


def plan_from_cut(channels: ChannelMap, cut: Collection[int]) -> PruningPlan:
    """The plan that cuts the units with these labels.

    Raises PlanError if a label is no unit, or a family, a layer or any tensor would lose all its channels.
    """
    cut = frozenset(cut)
    known = set(channels.unit_labels.tolist())
    if not cut <= known:
        raise PlanError(f"labels {sorted(cut - known)[:3]} are no units of this model")
    families = []
    for family in channels.families:
        keep = tuple(i for i, label in enumerate(family.labels.tolist()) if label not in cut)
        if not keep:
            raise PlanError(
                f"family {family.name} would lose all its {family.width} channels",
                "lower the ratio or raise min_width",
            )
        families.append(FamilyPlan(name=family.name, width=family.width, keep=keep))
    for name, ids in channels.emptied(cut):
        raise PlanError(
            f"{name} would lose all its {len(ids)} channels", "keep one of them: a graph has no empty tensors"
        )
    return PruningPlan(families=tuple(families), initializers=_initializers(channels, cut))


def cut_of_plan(channels: ChannelMap, plan: PruningPlan) -> frozenset[int]:
    """The labels that `plan` cuts in this model. Raises PlanError if it belongs to another."""
    planned = {f.name: f for f in plan.families}
    cut: set[int] = set()
    for family in channels.families:
        entry = planned.pop(family.name, None)
        if entry is None or entry.width != family.width:
            seen = "absent" if entry is None else f"{entry.width} wide"
            raise PlanError(
                f"family {family.name} is {family.width} wide in this model and {seen} in the plan",
                "use the plan of this model",
            )
        cut.update(np.delete(family.labels, entry.keep).tolist())
    if planned:
        raise PlanError(
            f"the plan has a family {next(iter(planned))}, which this model lacks",
            "use the plan of this model",
        )
    return frozenset(cut)


def _initializers(channels: ChannelMap, cut: frozenset[int]) -> dict[str, tuple[AxisPlan, ...]]:
    gone: dict[tuple[str, int], set[int]] = {}
    masked: dict[tuple[str, int], bool] = {}
    leaving = np.fromiter(cut, np.int64, len(cut))
    for family in channels.families:
        going = np.isin(family.labels, leaving)
        if not going.any():
            continue
        for place in family.places:
            if place.initializer not in channels.parameters:
                continue  # a constant of the trace: it shrinks in the graph, a module does not have it
            key = (place.initializer, place.axis)
            gone.setdefault(key, set()).update(place.indices[going[place.owners]].tolist())
            masked[key] = place.masked
    plans: dict[str, list[AxisPlan]] = {}
    for (name, index), indices in sorted(gone.items()):
        axis = channels.initializer_axes[name][index]
        width = 0 if axis is None else len(axis)
        keep = tuple(i for i in range(width) if i not in indices)
        if not keep:
            raise PlanError(f"{name} would lose all of its axis {index}", "lower the ratio or raise min_width")
        plans.setdefault(name, []).append(AxisPlan(axis=index, width=width, keep=keep, masked=masked[name, index]))
    return {name: tuple(axes) for name, axes in plans.items()}


def _check_keep(keep: tuple[int, ...], width: int, what: str) -> None:
    if not keep or any(a >= b for a, b in itertools.pairwise(keep)) or keep[0] < 0 or keep[-1] >= width:
        raise ValueError(f"{what}: kept indices must be ascending, in [0, {width}) and not empty")
