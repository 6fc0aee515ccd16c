"""Fill a device profile with what a planner must know of one net.

The widths of the nets that are measured are a Latin hypercube over the candidates: every family has each of its widths
equally often, and of two families all kinds of pairs occur. So each layer is seen at many pairs of widths while only
some forty nets run. A net that the profile holds is not measured again; one whose operators were all seen elsewhere
is only looked at, once enough whole nets are known.

A measurement that does not settle is taken again. If it never does, that is said, with the spread: a plan made from
guesses would be a guess.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeslim.errors import ConfigError, DeviceError
from edgeslim.progress import Progress, told_late
from edgeslim.runtime.backends import Array

from ..clock import undisturbed
from .find import Place
from .observe import Observation, Observer
from .space import Widths, WidthSpace

SETTLED = 0.08
"""Spread of a whole net's latency below which it counts as settled."""
MOST_SPREAD = 0.25
"""Spread above which it is of no use, however often it was measured."""
MOST_SLOWDOWN = 2.0
"""How much slower the reference work may be than it was: beyond, the device throttles, or is not ours alone."""
ATTEMPTS = 4
_PAUSE_SECONDS = 0.5
_FEWEST_WHOLE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectOptions:
    """nets: how many different plans are measured.  seconds: for each, about.  seed: which plans."""

    nets: int = 40
    seconds: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.nets < 8:
            raise ConfigError(f"nets is {self.nets}; a profile needs at least 8", "40 is usual")
        if not self.seconds > 0:
            raise ConfigError(f"seconds is {self.seconds}; it must be above 0", "1 is usual")


def design(candidates: Sequence[Widths], nets: int, seed: int = 0) -> list[Widths]:
    """As many different plans to measure: the dense net, the narrowest, and a Latin hypercube.

    All plans there are, where there are no more than that.
    """
    if math.prod(map(len, candidates)) <= nets:
        return sorted(itertools.product(*candidates), key=lambda plan: (-sum(plan), plan))
    generator = np.random.default_rng(seed)
    dense, narrowest = tuple(own[-1] for own in candidates), tuple(own[0] for own in candidates)
    count = max(0, nets - 2)
    columns = []
    for own in candidates:
        levels = np.floor(np.arange(count) * len(own) / max(count, 1)).astype(int)
        columns.append(np.asarray(own)[generator.permutation(levels)])
    rows = [tuple(int(w) for w in row) for row in np.array(columns, np.int64).reshape(len(columns), count).T]
    plans = dict.fromkeys([dense, narrowest, *rows])
    while len(plans) < nets:  # some were drawn twice
        plans[tuple(int(generator.choice(own)) for own in candidates)] = None
    return list(plans)


def collect(
    space: WidthSpace, place: Place, progress: Progress, options: CollectOptions | None = None
) -> tuple[Widths, ...]:
    """Measure what is missing of a space, and return the plans of its design. Of a foreign device nothing is measured.

    Raises DeviceError where measurements do not settle.
    """
    options = options or CollectOptions()
    plans = tuple(design(space.candidates, options.nets, options.seed))
    if place.observer is None:
        return plans
    observer, profile = place.observer, place.profile
    device, whole, known = place.fingerprint, 0, set(profile.latencies(place.fingerprint))
    told = told_late(progress, "device profile")
    for number, widths in enumerate(plans):
        digest = space.digest(widths)
        stored = profile.net(device, digest)
        if stored is None:
            graph = space.graph(space.cut(widths))
            nodes = observer.structure(graph, space.feeds) if whole >= _FEWEST_WHOLE else ()
            if nodes and all(node.operator.key in known for node in nodes):
                profile.add_structure(device, digest, nodes)
            else:
                seen = observe_settled(observer, graph, space.feeds, profile.reference_us(device), options.seconds)
                profile.add(device, digest, seen)
                known.update(node.operator.key for node in seen.nodes)
                whole += 1
        else:
            whole += stored.latency_us is not None
        told(number + 1, len(plans))
    return plans


def observe_settled(
    observer: Observer,
    graph: bytes,
    feeds: Mapping[str, Array],
    reference_us: float | None,
    seconds: float,
    *,
    settled: float = SETTLED,
) -> Observation:
    """Observe a net until its latency is steady: the steadiest of some attempts.

    reference_us: the reference work's usual latency, None where nothing was measured yet.  settled: spread at which
    there is no further attempt. Raises DeviceError with the spread where none is steady enough, or the device has
    become slow.
    """
    seen: list[Observation] = []
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS * attempt)
        with undisturbed():
            seen.append(observer.observe(graph, feeds, seconds))
        if seen[-1].spread <= settled and _slowdown(seen[-1], reference_us) <= MOST_SLOWDOWN:
            return seen[-1]
    usable = [one for one in seen if _slowdown(one, reference_us) <= MOST_SLOWDOWN]
    if not usable:
        slow = min(_slowdown(one, reference_us) for one in seen)
        raise DeviceError(
            f"the device is {slow:.1f} times as slow as it usually was for this profile: it throttles, or "
            f"other programs run on it; up to {MOST_SLOWDOWN:g} times is made up for",
            "let it cool down, stop other programs, and start again: what was measured is kept",
        )
    best = min(usable, key=lambda one: one.spread)
    if best.spread > MOST_SPREAD:
        raise DeviceError(
            f"latencies do not settle: in the steadiest of {ATTEMPTS} attempts they spread by {best.spread:.0%} of "
            f"{best.latency_us / 1e3:.3g} ms; up to {MOST_SPREAD:.0%} is usable",
            "stop other programs on the device and start again: what was measured is kept",
        )
    return best


def _slowdown(seen: Observation, reference_us: float | None) -> float:
    return 1.0 if reference_us is None else seen.reference_us / reference_us
