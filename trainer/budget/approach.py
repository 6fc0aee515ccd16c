"""Near a latency by measuring: plan, race, correct, until the net that really runs is within the target.

The programme knows the latency by a model, which errs by some percent. So its limit is moved by what it was wrong about
the last plan, between the limits that turned out too low and too high; what is returned has been measured beside the
dense net, and is never slower than that. Then cuts are taken back that make nothing faster: by the model for all
families, by a race for those of which the model is least sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgeslim.bench.profile import Timed, Widths
from edgeslim.errors import BudgetError

from .counted import CountedPlans
from .programme import OutOfReach, Problem, Widened, least, usage, value, widen
from .reached import level_words
from .targets import Limit

NEAR = 0.93
"""Share of the target that the measured latency reaches: what is left unused is importance lost."""
SURE = 0.99
"""And beyond which another measurement may well be above the target: a plan there is measured twice, and taken only
for want of others."""
AIM = 0.965
"""Of the target, that a plan aims at: between both ends."""
ATTEMPTS = 6
PLAIN = 1.15
"""So many times what is wanted, and a net is too slow by the model alone, where both are shares of the dense net's."""
DOUBTS = 3
"""So many families are raced at most."""
DOUBTFUL = 0.02
"""Share of the latency that a family's cut saves by the model, below which that is looked at."""

_US_PER_MS = 1e3

Race = Callable[[Sequence[Widths]], tuple[float, tuple[Timed, ...]]]
"""Plans -> the dense net's latency in ms, and theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raced:
    """A plan that was measured. value: importance that stays.  undone: family -> (width before, width now)."""

    widths: Widths
    value: float
    predicted_us: float
    timed: Timed
    dense_ms: float
    undone: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Approach:
    """problem: with all limits but that of latency.  dense_us: the dense net's latency by the same model.

    latency: the limit to be near.  share: of the way to it.  counted: plans within all other limits.
    """

    problem: Problem
    dense_us: float
    latency: Limit
    share: float
    race: Race
    counted: CountedPlans

    def run(self) -> Raced:
        """The plan that keeps the most importance of those that were measured within the target.

        Raises BudgetError with the fastest that was measured where none is, OutOfReach where the other limits cannot be
        met, or leave no plan to be measured.
        """
        widest = tuple(ladder.widths[-1] for ladder in self.problem.ladders)
        widest_us = usage(self.problem, widest)["latency"]
        wanted_us = self.latency.at(self.dense_us, self.share)
        limit_us = AIM * wanted_us
        if not self.latency.relative or widest_us < PLAIN * wanted_us:  # otherwise there is nothing to find out
            start = self._raced(widest, {})
            if start.timed.latency_ms <= self._wanted_ms(start.dense_ms) and self.counted.fits(widest):
                return start
            limit_us = AIM * widest_us * self._wanted_ms(start.dense_ms) / start.timed.latency_ms
        best: Raced | None = None
        best_near = False
        tried: dict[Widths, Raced] = {}
        low_us, high_us = 0.0, math.inf  # limits whose plans are too fast, and too slow
        for _ in range(ATTEMPTS):
            try:
                widths, undone = self._plan(limit_us)
            except OutOfReach:
                if not tried:
                    raise
                break
            known = widths in tried
            seen = tried[widths] if known else self._raced(widths, undone)
            if not known and SURE < self._of_wanted(seen) <= 1.0:
                seen = max(seen, self._raced(widths, undone), key=self._of_wanted)
            tried[widths] = seen
            ratio = self._of_wanted(seen)
            near = NEAR <= ratio <= SURE
            if ratio <= 1.0 and (best is None or (near, seen.value) > (best_near, best.value)):
                best, best_near = seen, near
            if near or (known and (ratio > SURE or limit_us >= min(high_us, widest_us))):
                break
            # Too slow: from what the model says of this very plan, for there its error is known. Too fast: on.
            if ratio > SURE:
                high_us = min(high_us, seen.predicted_us)
                limit_us = min(limit_us, seen.predicted_us) * AIM / ratio
            else:
                low_us = max(low_us, limit_us, seen.predicted_us)
                limit_us = low_us * AIM / ratio
            if not low_us < limit_us < high_us:  # where the model errs by more than what lies between two plans
                limit_us = (low_us + high_us) / 2
        if best is None:
            raise self._out_of_reach(min(tried.values(), key=lambda one: one.timed.latency_ms))
        return self._without_doubts(best)

    def _wanted_ms(self, dense_ms: float) -> float:
        """The most that a plan may take: a pruned net that is slower than the dense one helps nobody."""
        return min(dense_ms, self.latency.at(dense_ms * _US_PER_MS, self.share) / _US_PER_MS)

    def _of_wanted(self, raced: Raced) -> float:
        return raced.timed.latency_ms / self._wanted_ms(raced.dense_ms)

    def _plan(self, limit_us: float) -> tuple[Widths, dict[int, tuple[int, int]]]:
        """The best widths by the model; the fastest where none meet its limit."""
        try:
            found = self.counted.best(replace(self.problem, limits={**self.problem.limits, "latency": limit_us}))
        except OutOfReach as error:
            fastest = error.least.get("latency")
            if fastest is None or not self.counted.fits(fastest.widths):
                raise
            found = widen(self.problem, fastest.widths, resources={*self.problem.limits, "latency"})
            if not self.counted.fits(found.widths):
                found = Widened(widths=fastest.widths, undone=())
        return found.widths, {step.family: (step.before, step.after) for step in found.undone}

    def _raced(self, widths: Widths, undone: Mapping[int, tuple[int, int]]) -> Raced:
        dense_ms, (timed,) = self.race([widths])
        return self._measured(widths, timed, dense_ms, undone)

    def _measured(self, widths: Widths, timed: Timed, dense_ms: float, undone: Mapping[int, tuple[int, int]]) -> Raced:
        return Raced(
            widths=widths,
            value=value(self.problem, widths),
            predicted_us=usage(self.problem, widths)["latency"],
            timed=timed,
            dense_ms=dense_ms,
            undone=undone,
        )

    def _out_of_reach(self, fastest: Raced) -> BudgetError:
        floor = least(self.problem, "latency").widths
        if floor != fastest.widths and self.counted.fits(floor):
            fastest = min(fastest, self._raced(floor, {}), key=lambda one: one.timed.latency_ms)
        wanted_ms = self._wanted_ms(fastest.dense_ms)
        ratio = fastest.timed.latency_ms / fastest.dense_ms
        seen = (
            f"the fastest plan that was measured takes {fastest.timed.latency_ms:.3g} ms, {ratio:.3f} of the dense "
            f"net's {fastest.dense_ms:.3g} ms"
        )
        within = f" within {', '.join(sorted(self.problem.limits))}" if self.problem.limits else ""
        if all(len(ladder.widths) == 1 for ladder in self.problem.ladders):
            return BudgetError(
                f"{self.latency} is {wanted_ms:.3g} ms here and cannot be reached: no family has a width to choose "
                f"beside its own, at which the net takes {fastest.timed.latency_ms:.3g} ms",
                "allow narrower widths (min_share, min_width, width_multiple), or let fewer scores be infinite",
            )
        if ratio >= 1.0:
            return BudgetError(
                f"no plan{within} is faster than the dense net: {seen}",
                "pruning does not pay on this device: leave the net dense, or allow other widths (min_share, "
                "min_width, width_multiple)",
            )
        return BudgetError(
            f"{level_words(str(self.latency), self.share)} is {wanted_ms:.3g} ms here and cannot be reached{within}: "
            f"{seen}",
            f"ask for latency={math.ceil(min(1.0, ratio * 1.02) * 100) / 100:g}x or more, or allow narrower widths "
            "(min_share, min_width)",
        )

    def _without_doubts(self, best: Raced) -> Raced:
        """`best` with the cut taken back that makes nothing faster, of those that the model expects least of."""
        problem, doubtful = self.problem, []
        for family, (ladder, width) in enumerate(zip(problem.ladders, best.widths, strict=True)):
            if width == ladder.widths[-1]:
                continue
            wider = (*best.widths[:family], ladder.widths[-1], *best.widths[family + 1 :])
            saved = usage(problem, wider)["latency"] - best.predicted_us
            if saved < DOUBTFUL * best.predicted_us and self.counted.fits(wider):
                doubtful.append((saved, family, wider))
        chosen = sorted(doubtful)[:DOUBTS]
        if not chosen:
            return best
        dense_ms, (again, *others) = self.race([best.widths, *(wider for _, _, wider in chosen)])
        faster = [
            (timed.latency_ms, family, wider, timed)
            for (_, family, wider), timed in zip(chosen, others, strict=True)
            if timed.latency_ms <= again.latency_ms
        ]
        if not faster:
            return best
        _, family, wider, timed = min(faster, key=lambda one: one[0])
        if timed.latency_ms > self._wanted_ms(dense_ms):
            return best
        undone = {**best.undone, family: (best.widths[family], wider[family])}
        return self._measured(wider, timed, dense_ms, undone)
