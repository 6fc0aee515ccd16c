"""Which widths are worth considering: the steps of the device's staircase.

A kernel computes whole blocks of channels: at the end of a block one channel more costs a jump. One convolution, from w
to w channels, is measured at every width up to `WIDEST`. How far a width w lies below all that are wider,

    bargain(w) = min over v > w of latency(v) / latency(w)

is next to nothing on a smooth device; where channels are computed in blocks of m it is ((w + m) / w)^2 at the multiples
of m. A bargain at w is explained by every power of two that divides w: the odd multiples tell them apart. The step is
the smallest power of two at most of whose odd multiples the bargain has `SHARE` of its height. Below one step, its half
and its quarter count as well where they are much faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeslim.errors import DeviceError
from edgeslim.exporter.channels.families import Family
from edgeslim.progress import Progress, told_late

from ..clock import undisturbed
from .collect import MOST_SPREAD, observe_settled
from .find import Place
from .net_digest import net_digest
from .reference import convolution
from .space import Widths

WIDEST = 64
"""A power of two."""
MOST_CANDIDATES = 16
"""Of one family: more are thinned out evenly, dense and narrowest stay."""
SHARE = 0.2
"""Of a jump's full height: layouts have to be changed back and forth, and part of a kernel is no work on channels."""
SMOOTH = 4
"""The step of a device without jumps: finer ones would only make more candidates."""
_SIZE = (24, 24)
_SECONDS = 0.05
_MOST = 0.5
_MUCH_FASTER = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """multiple: useful widths are its multiples. below: those below it that are useful too, ascending."""

    multiple: int
    below: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.multiple < 1 or any(not 0 < width < self.multiple for width in self.below):
            raise ValueError(f"step {self.multiple} with {self.below} below it")


def measure_staircase(place: Place, progress: Progress) -> dict[int, float]:
    """Latency in us of a 3x3 convolution from w to w channels, for w in 1..WIDEST; from the profile where it is known.

    Raises DeviceError where it is not, and the device is not here, or does not settle.
    """
    device, profile, seen = place.fingerprint, place.profile, list[tuple[int, float, float]]()
    told = told_late(progress, "staircase")
    usual_us = profile.reference_us(device)
    with undisturbed():
        for width in range(1, WIDEST + 1):
            graph, feeds = convolution(width, width, (3, 3), _SIZE)
            digest = net_digest(graph, feeds)
            known = profile.net(device, digest)
            if (known is None or known.latency_us is None) and place.observer is not None:
                found = observe_settled(place.observer, graph, feeds, usual_us, _SECONDS, settled=MOST_SPREAD)
                usual_us = usual_us or found.reference_us
                profile.add(device, digest, found)
                known = profile.net(device, digest)
            if known is None or known.latency_us is None or known.reference_us is None:
                raise DeviceError(
                    f"{profile.path} has no staircase of {device}", "measure one there: `edgeslim profile measure`"
                )
            seen.append((width, known.latency_us, known.reference_us))
            told(width, WIDEST)
    base = float(np.median([reference_us for _, _, reference_us in seen]))
    return {width: latency_us * base / reference_us for width, latency_us, reference_us in seen}


def find_step(staircase: Mapping[int, float]) -> Step:
    """The step of a staircase, width -> latency for all widths from 1 on."""
    multiple = SMOOTH
    while multiple < max(staircase) and not _jumps_at(staircase, multiple):
        multiple *= 2
    if multiple >= max(staircase):
        multiple = SMOOTH
    below = [multiple // part for part in (4, 2) if multiple // part >= SMOOTH]
    whole = staircase[multiple]
    return Step(multiple=multiple, below=tuple(w for w in below if staircase[w] < _MUCH_FASTER * whole))


def _jumps_at(staircase: Mapping[int, float], multiple: int) -> bool:
    multiples = range(multiple, max(staircase), 2 * multiple)
    jumps = 0
    for width in multiples:
        bargain = min(latency for other, latency in staircase.items() if other > width) / staircase[width]
        jumps += bargain - 1.0 >= SHARE * (((width + multiple) / width) ** 2 - 1.0)
    return jumps >= _MOST * len(multiples)


def candidate_widths(
    families: Sequence[Family], step: Step, *, width_multiple: int = 1, min_width: int = 1, min_share: float = 0.0
) -> tuple[Widths, ...]:
    """Ascending candidate widths of every family, in units; its own width is the last.

    width_multiple, min_width: limits in channels that a person sets beside the device's.  min_share: of a family's
    width, that stays.
    """
    return tuple(_of_family(family, step, width_multiple, min_width, min_share) for family in families)


def _of_family(family: Family, step: Step, width_multiple: int, min_width: int, min_share: float) -> Widths:
    each = min(len(place.indices) // family.width for place in family.places if place.masked)
    multiple = math.lcm(step.multiple, width_multiple)
    widths = {channels for channels in step.below if channels % width_multiple == 0}
    widths |= set(range(multiple, family.width * each, multiple))
    units = {-(-channels // each) for channels in widths if channels >= min_width}
    least = max(1, math.ceil(min_share * family.width - 1e-9))
    useful = [*sorted(unit for unit in units if least <= unit < family.width), family.width]
    if len(useful) > MOST_CANDIDATES:
        chosen = np.unique(np.linspace(0, len(useful) - 1, MOST_CANDIDATES).round().astype(int))
        useful = [useful[i] for i in chosen]
    return tuple(useful)
