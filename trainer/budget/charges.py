"""What every layer takes of every resource, as the width programme wants it: functions of two totals of channels.

Totals are whole numbers there. Where only a part of a family's units lies on an axis its length counts them by a
fraction; such an axis is counted in parts of a channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from edgeslim.bench.profile import LatencyModel, Part
from edgeslim.exporter.memory import AxisTerms, Moments, SizeTerms

from .programme import Charge, Cost, Moment, Total

_MOST_PARTS = 64
Lengths = NDArray[np.float64]


def latency_charges(model: LatencyModel) -> Iterator[Charge]:
    """Microseconds of every part of a net."""
    for part in model.parts:
        (read, reads), (written, writes) = _total(part.read), _total(part.written)
        cost = _latency(model, part, reads, writes)
        yield Charge(name=part.value, inputs=read, outputs=written, costs={"latency": cost})


def size_charges(resource: str, terms: SizeTerms, dense: Sequence[int]) -> Iterator[Charge]:
    """What every tensor takes: scale times the product of its axes. Of more than two that vary, only the two that
    widths change most do; the others count at full length, which is never too little."""
    for name, scale, fixed, per_unit in zip(terms.names, terms.scale, terms.fixed, terms.per_unit):
        axes = [AxisTerms(fixed=float(f), per_unit=p) for f, p in zip(fixed, per_unit)]
        varying = sorted((a for a in axes if a.varies), key=lambda a: -float(a.per_unit.sum()))[:2]
        still = math.prod(a.length(dense) for a in axes if not any(a is v for v in varying))
        totals = [_total(axis) for axis in varying]
        factor = float(scale) * still / math.prod(parts for _, parts in totals)
        outputs = totals[0][0] if totals else Total(constant=1)
        inputs = totals[1][0] if len(totals) > 1 else Total()
        yield Charge(name=name, inputs=inputs, outputs=outputs, costs={resource: _product(factor, len(totals) > 1)})


def memory_moments(moments: Moments, scale: float) -> tuple[Moment, ...]:
    """Bytes that are alive at every moment that can be the peak, times `scale`."""
    return tuple(
        Moment(
            constant=scale * float(constant),
            per_channel={family: scale * float(each) for family, each in enumerate(per_unit) if each},
        )
        for constant, per_unit in zip(moments.constant, moments.per_unit)
    )


def _latency(model: LatencyModel, part: Part, reads: int, writes: int) -> Cost:
    """reads, writes: in how many parts of a channel the totals are counted."""

    def cost(inputs: NDArray[np.int64], outputs: NDArray[np.int64], /) -> Lengths:
        return model.part_us(part, inputs / reads, outputs / writes)

    return cost


def _product(factor: float, both: bool) -> Cost:
    def cost(inputs: NDArray[np.int64], outputs: NDArray[np.int64], /) -> Lengths:
        lengths = np.asarray(outputs, np.float64)
        return factor * (lengths * inputs if both else lengths)

    return cost


def _total(axis: AxisTerms) -> tuple[Total, int]:
    """An axis as a total, and in how many parts of a channel that is counted."""
    shares = [
        (family, Fraction(float(each)).limit_denominator(_MOST_PARTS)) for family, each in enumerate(axis.per_unit)
    ]
    fixed = Fraction(axis.fixed).limit_denominator(_MOST_PARTS)
    parts = math.lcm(fixed.denominator, *(share.denominator for _, share in shares))
    return (
        Total(constant=int(fixed * parts), coefficients={f: int(share * parts) for f, share in shares if share}),
        parts,
    )
