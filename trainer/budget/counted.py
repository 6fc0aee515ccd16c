"""Plans whose own graphs are within the limits of what can be counted: work, parameters, file and memory.

The programme knows these by functions of the widths, which are exact where every unit of a family has as many channels
as any other, and a guess for memory: the block that ONNX Runtime plans has gaps that no formula tells. So what it
answers is cut and counted, and what it is told is moved until it fits: down where a plan takes too much, and up where a
guess of its memory was too high. What memory is left then goes to families one after the other, each as wide as fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from edgeslim.bench.profile import Widths
from edgeslim.errors import InvariantError

from .programme import OutOfReach, Problem, Undone, Widened, exceeds, least, solve, usage, value, widen

ATTEMPTS = 10
FULL = 0.95
"""Share of a limit of memory that a plan takes, at which no larger one is looked for."""
_TIGHTER = 0.998
"""By so much at least other limits shrink where a plan was above them."""
_CLOSE = 0.01
"""So near, as a share, two limits of memory are told to the programme at least."""
MOST_TRIED = 100
"""Wider plans that are counted at most, at some tenths of a second each."""

Count = Callable[[Widths], Mapping[str, float]]
"""What a plan's own graph takes of every resource that is limited and can be counted."""


def best_within(problem: Problem) -> Widened:
    """What the programme answers. Raises OutOfReach."""
    return widen(problem, solve(problem).widths)


@dataclass(kw_only=True)
class CountedPlans:
    """limits: of what can be counted, by resource.  count: see Count; asked once a plan.

    untried: whether plans were left out that may be wider and fit, for MOST_TRIED were counted.
    """

    limits: Mapping[str, float]
    count: Count
    untried: bool = False
    _known: dict[Widths, Mapping[str, float]] = field(default_factory=dict)

    def taken(self, widths: Widths) -> Mapping[str, float]:
        """What a plan takes."""
        if widths not in self._known:
            self._known[widths] = self.count(widths)
        return self._known[widths]

    def fits(self, widths: Widths) -> bool:
        """Whether a plan is within the limits."""
        return not self._over(widths)

    def best(self, problem: Problem) -> Widened:
        """The best widths that were found within all limits, none of which a wider one beats.

        problem: with these limits, and perhaps one of the latency, which is the programme's alone. Raises OutOfReach.
        """
        told = dict(problem.limits)
        best: Widened | None = None
        refused: OutOfReach | None = None
        memory = _Bracket.of(problem, self.limits.get("memory"))
        for _ in range(ATTEMPTS):
            try:
                found = best_within(replace(problem, limits=told))
            except OutOfReach as error:
                refused = error
                if memory is None or best is not None or not memory.none_at(told["memory"]):
                    break
                told["memory"] = memory.middle
                continue
            over = self._over(found.widths)
            if not over and (best is None or value(problem, found.widths) > value(problem, best.widths)):
                best = found
            for name, factor in over.items():
                if name != "memory":
                    told[name] *= min(1.0 / factor, _TIGHTER)
            if memory is not None:
                share = self.taken(found.widths)["memory"] / self.limits["memory"]
                if not memory.seen(told["memory"], usage(problem, found.widths)["memory"], share):
                    if not over or set(over) == {"memory"}:
                        break
                else:
                    told["memory"] = memory.next
            elif not over:
                break
        return self._filled(problem, best or self._least(problem, refused))

    def least_seen(self, resource: str) -> float:
        """The least that any plan took that was counted."""
        return min(taken[resource] for taken in self._known.values())

    def _filled(self, problem: Problem, found: Widened) -> Widened:
        """The same, as long as one family can be wider within the limits: of memory the programme knew a guess."""
        if "memory" not in self.limits:
            return found
        now, before = found.widths, None
        most = len(self._known) + MOST_TRIED
        while now != before:
            before = now
            for family in _by_loss(problem, now):
                now = next((trial for trial in _wider(problem, now, family) if self._fits_within(trial, most)), now)
        steps = {step.family: step.before for step in found.undone}
        steps |= {family: old for family, old in enumerate(found.widths) if old != now[family] and family not in steps}
        undone = (Undone(family=family, before=old, after=now[family]) for family, old in sorted(steps.items()))
        return Widened(widths=now, undone=tuple(undone))

    def _fits_within(self, widths: Widths, most: int) -> bool:
        """Whether a plan is within the limits; none is counted where that makes more than `most`."""
        if widths not in self._known and len(self._known) >= most:
            self.untried = True
            return False
        return self.fits(widths)

    def _over(self, widths: Widths) -> dict[str, float]:
        """Resource -> taken / limit, of those of which a plan takes too much."""
        taken = self.taken(widths) if self.limits else {}
        return {name: taken[name] / limit for name, limit in self.limits.items() if exceeds(taken[name], limit)}

    def _least(self, problem: Problem, refused: OutOfReach | None) -> Widened:
        """What is least of one of the resources, if that is within all limits. Raises OutOfReach."""
        for name in self.limits:
            tried = _levels(problem) if name == "memory" else [least(problem, name).widths]
            for widths in tried:
                if self.fits(widths) and _may_fit(problem, widths):
                    return Widened(widths=widths, undone=())
        if refused is None:
            names = {name: 0.0 for name in self.limits}
            try:
                best_within(replace(problem, limits={**problem.limits, **names}))
            except OutOfReach as error:
                refused = error
        if refused is None:
            raise InvariantError("a plan takes nothing, and is above its limits")
        raise refused


def _may_fit(problem: Problem, widths: Widths) -> bool:
    """Whether a plan is within all limits by what the programme knows of it, which of memory is a guess."""
    used = usage(problem, widths)
    return not any(exceeds(used[name], limit) for name, limit in problem.limits.items() if name != "memory")


def _wider(problem: Problem, widths: Widths, family: int) -> Iterator[Widths]:
    """A plan with one family wider, the widest first, where that may fit."""
    ladder = problem.ladders[family]
    for width in reversed(ladder.widths[ladder.rung(widths[family]) + 1 :]):
        wider = (*widths[:family], width, *widths[family + 1 :])
        if _may_fit(problem, wider):
            yield wider


def _levels(problem: Problem) -> list[Widths]:
    """All families at their narrowest, at the next width, and so on: the least memory is not always at the narrowest.

    Of widths that fill whole blocks ONNX Runtime keeps no copies in another layout.
    """
    highest = max((len(ladder.widths) for ladder in problem.ladders), default=1)
    plans = (tuple(own.widths[min(level, len(own.widths) - 1)] for own in problem.ladders) for level in range(highest))
    return list(dict.fromkeys(plans))


def _by_loss(problem: Problem, widths: Widths) -> list[int]:
    """The families that are cut, those first whose cut costs most importance."""
    lost = [ladder.values[-1] - ladder.values[ladder.rung(width)] for ladder, width in zip(problem.ladders, widths)]
    return sorted((family for family, loss in enumerate(lost) if loss > 0), key=lambda family: -lost[family])


@dataclass(kw_only=True)
class _Bracket:
    """Between which limits of memory the programme's best one lies. low: its plan is small enough, or there is none.

    high: its plan is too large.  next: what to tell it now.
    """

    low: float
    high: float
    next: float

    @classmethod
    def of(cls, problem: Problem, limit: float | None) -> _Bracket | None:
        """None where memory is not limited."""
        if limit is None:
            return None
        widest = tuple(ladder.widths[-1] for ladder in problem.ladders)
        return cls(low=0.0, high=max(usage(problem, widest)["memory"], limit) * (1.0 + _CLOSE), next=limit)

    @property
    def middle(self) -> float:
        """Half way."""
        return (self.low + self.high) / 2.0

    def none_at(self, told: float) -> bool:
        """Note that there was no plan; whether there may be one elsewhere."""
        self.low = max(self.low, told)
        return self.high - self.low > _CLOSE * self.high

    def seen(self, told: float, used: float, share: float) -> bool:
        """Note a plan; whether there may be a better one. used: by the programme.  share: of the limit, really."""
        if FULL <= share <= 1.0:
            return False
        if share > 1.0:
            self.high = min(self.high, used)
        else:
            self.low = max(self.low, told, used)
        self.next = used / share
        if not self.low < self.next < self.high:
            self.next = self.middle
        return self.high - self.low > _CLOSE * self.high
