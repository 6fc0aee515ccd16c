"""The latency of a whole net for any plan, from a device profile.

    T(plan) = a * sum over parts t(part, plan) + b * nodes

A part is one layer of the traced graph with all that the backend fused it with, or another operator, with the
conversions that move what it computes. Its latency at the plans of the profile is the sum of its operators', each the
median over all places where such an operator was seen; between them lies a surface. a and b are fitted to the
latencies of whole nets: what a run costs beside its operators, less what recording them costs.

The error is measured, not assumed: every plan of the profile is predicted by a model that has not seen it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import DeviceError
from edgeslim.exporter.memory import AxisTerms

from .fingerprint import Fingerprint
from .space import Widths, WidthSpace
from .store import DeviceProfile, OperatorLatency, StoredNet
from .surface import Surface, fit_surface

_FOLDS = 5
_FEWEST = 6
_LAYERS = ("Conv", "Gemm", "MatMul")
"""In the names of operators that have weights, fused or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelError:
    """How far predictions of plans that were not used in fitting are from measurements, as shares."""

    median: float
    worst: float
    plans: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What computes one value. nodes: operators it takes, on average."""

    value: str
    read: AxisTerms
    written: AxisTerms
    surface: Surface
    """Its operators' latency in us."""
    nodes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyModel:
    """Made by `fit_latency`. slope: a; per_node_us: b, see the module's docstring."""

    device: Fingerprint
    parts: tuple[Part, ...]
    slope: float
    per_node_us: float
    error: ModelError | None

    def predict(self, widths: Sequence[int]) -> float:
        """Latency of a plan in us, at the reference speed of the profile."""
        lengths = [(np.array(p.read.length(widths)), np.array(p.written.length(widths))) for p in self.parts]
        return float(sum(self.part_us(part, *own) for part, own in zip(self.parts, lengths)))

    def part_us(self, part: Part, read: NDArray[np.float64], written: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a part adds to the whole net, in us, where so many channels are read and written."""
        return self.slope * part.surface.at(read, written) + self.per_node_us * part.nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """One plan of the profile. parts: value -> (latency in us, operators)."""

    widths: Widths
    parts: dict[str, tuple[float, int]]
    whole_us: float | None

    @property
    def nodes(self) -> int:
        return sum(count for _, count in self.parts.values())


def fit_latency(
    space: WidthSpace, profile: DeviceProfile, device: Fingerprint, plans: Sequence[Widths]
) -> LatencyModel:
    """The model of a space by what the profile knows of these plans on a device.

    Raises DeviceError where it knows too few of them. Of a space with hardly any plans all are known: there is no error
    to be measured then, for none can be left out.
    """
    latencies, base = profile.latencies(device), profile.reference_us(device)
    layer_of: dict[str, bool] = {}
    known = []
    for widths in plans:
        stored = profile.net(device, space.digest(widths))
        if stored is not None and base is not None:
            known.append(_read_plan(space, widths, stored, latencies, base, profile, layer_of))
    whole = [plan for plan in known if plan.whole_us is not None]
    needed = min(_FEWEST, math.prod(map(len, space.candidates)))
    if len(whole) < needed:
        raise DeviceError(
            f"{profile.path} knows {len(whole)} of the {len(plans)} plans of this net that it should know on {device}; "
            f"at least {needed} are needed",
            f"measure them there: `edgeslim profile measure NET --nets {len(plans)}`",
        )
    model = _fit(space, device, known)
    if len(whole) < _FEWEST:
        return model
    order = np.random.default_rng(0).permutation(len(whole))
    errors = []
    for fold in range(_FOLDS):
        unseen = {id(whole[i]) for i in order[fold::_FOLDS]}
        fitted = _fit(space, device, [plan for plan in known if id(plan) not in unseen])
        errors += [
            abs(fitted.predict(plan.widths) / plan.whole_us - 1.0)
            for plan in whole
            if id(plan) in unseen and plan.whole_us
        ]
    error = ModelError(median=float(np.median(errors)), worst=float(np.max(errors)), plans=len(errors))
    return replace(model, error=error)


def _read_plan(
    space: WidthSpace,
    widths: Widths,
    stored: StoredNet,
    latencies: dict[str, OperatorLatency],
    base: float,
    profile: DeviceProfile,
    layer_of: dict[str, bool],
) -> _Plan:
    """A net of the profile, part by part. layer_of: key of an operator -> has it weights; grows."""
    for _, key in stored.nodes:
        if key not in layer_of:
            layer_of[key] = any(word in profile.operator(key).name for word in _LAYERS)
    layers = {value: space.layer_of(value) for value, key in stored.nodes if layer_of[key]}
    parts: dict[str, tuple[float, int]] = {}
    for value, key in stored.nodes:
        name = layers.get(value, value)
        latency_us, count = parts.get(name, (0.0, 0))
        if key not in latencies:
            raise DeviceError(
                f"{profile.path} knows a net with the operator {profile.operator(key).name}, but no latency of it",
                "measure a new profile",
            )
        parts[name] = (latency_us + latencies[key].latency_us, count + 1)
    return _Plan(widths=widths, parts=parts, whole_us=stored.latency_at(base))


def _correction(sums: NDArray[np.float64], measured: NDArray[np.float64]) -> tuple[float, float]:
    """a and b by least squares of relative errors. sums: (nets, 2) of latencies and of nodes.  measured: (nets,).

    b is negative where recording an operator takes longer than what a run costs beside it. a never is: where two
    unknowns cannot be told apart, only a is fitted.
    """
    relative, ones = sums / measured[:, None], np.ones(len(measured))
    (slope, per_node_us), *_ = np.linalg.lstsq(relative, ones, rcond=None)
    if slope > 0 and len(measured) >= _FEWEST:
        return float(slope), float(per_node_us)
    return float(relative[:, 0].sum() / np.square(relative[:, 0]).sum()), 0.0


def _fit(space: WidthSpace, device: Fingerprint, plans: Sequence[_Plan]) -> LatencyModel:
    values = dict.fromkeys(value for plan in plans for value in plan.parts)
    parts = []
    for value in values:
        read, written = space.read_and_written(value)
        rows = [plan.parts.get(value, (0.0, 0)) for plan in plans]
        surface = fit_surface(
            np.array([read.length(plan.widths) for plan in plans]),
            np.array([written.length(plan.widths) for plan in plans]),
            np.array([latency_us for latency_us, _ in rows]),
        )
        nodes = float(np.mean([count for _, count in rows]))
        parts.append(Part(value=value, read=read, written=written, surface=surface, nodes=nodes))
    whole = [plan for plan in plans if plan.whole_us is not None]
    sums = np.array([[sum(us for us, _ in plan.parts.values()), plan.nodes] for plan in whole], np.float64)
    measured = np.array([plan.whole_us for plan in whole], np.float64)
    slope, per_node_us = _correction(sums, measured)
    return LatencyModel(device=device, parts=tuple(parts), slope=slope, per_node_us=per_node_us, error=None)
