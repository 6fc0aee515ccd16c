"""Near a latency by measuring: plan, race, correct, until the net that really runs is within the target.

The programme knows the latency by a model, which errs by some percent. So its limit is moved by what it was wrong about
the last plan, and what is returned has been measured beside the dense net. Then cuts are taken back that make nothing
faster: by the model for all families, by a race for those of which the model is least sure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgeslim.bench.profile import Timed, Widths
from edgeslim.errors import BudgetError

from .programme import OutOfReach, Problem, Widened, least, usage, value, widen
from .targets import Limit

NEAR = 0.93
"""Share of the target that the measured latency reaches: what is left unused is importance lost."""
AIM = 0.965
"""Of the target, that a plan aims at: between both ends, with room for what the next measurement may differ by."""
ATTEMPTS = 6
DOUBTS = 3
"""So many families are raced at most."""
DOUBTFUL = 0.02
"""Share of the latency that a family's cut saves by the model, below which that is looked at."""

Race = Callable[[Sequence[Widths]], tuple[float, tuple[Timed, ...]]]
"""Plans -> the dense net's latency in ms, and theirs."""

Plan = Callable[[Problem], Widened]
"""A problem with all its limits -> the best widths within them, none of which a wider one beats."""


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
    """problem: with all limits but that of latency.  latency: the limit to be near.  share: of the way to it.

    plan: the best widths of a problem.
    """

    problem: Problem
    latency: Limit
    share: float
    plan: Plan
    race: Race

    def run(self) -> Raced:
        """The plan that keeps the most importance of those that were measured within the target.

        Raises BudgetError with the fastest that was measured where none is.
        """
        start = self._raced(tuple(ladder.widths[-1] for ladder in self.problem.ladders), {})
        wanted_ms = self.latency.at(start.dense_ms, self.share)
        if start.timed.latency_ms <= wanted_ms and self._meets_all(start.widths):
            return start
        best: Raced | None = None
        fastest, tried = start, set[Widths]()
        limit_us = AIM * start.predicted_us * wanted_ms / start.timed.latency_ms
        for _ in range(ATTEMPTS):
            widths, undone = self._plan(limit_us)
            if widths in tried:
                break
            tried.add(widths)
            seen = self._raced(widths, undone)
            fastest = min(fastest, seen, key=lambda one: one.timed.latency_ms)
            ratio = seen.timed.latency_ms / self.latency.at(seen.dense_ms, self.share)
            if ratio <= 1.0 and (best is None or seen.value > best.value):
                best = seen
            if NEAR <= ratio <= 1.0:
                break
            # Too slow: from what the model says of this very plan, for there its error is known. Too fast: on.
            limit_us = (min(limit_us, seen.predicted_us) if ratio > 1.0 else limit_us) * AIM / ratio
        if best is None:
            raise self._out_of_reach(fastest)
        return self._without_doubts(best)

    def _plan(self, limit_us: float) -> tuple[Widths, dict[int, tuple[int, int]]]:
        """The best widths by the model; the fastest where none meet its limit."""
        try:
            found = self.plan(replace(self.problem, limits={**self.problem.limits, "latency": limit_us}))
        except OutOfReach as error:
            fastest = error.least.get("latency")
            if fastest is None or not self._meets_all(fastest.widths):
                raise
            found = widen(self.problem, fastest.widths, resources={*self.problem.limits, "latency"})
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

    def _meets_all(self, widths: Widths) -> bool:
        """Whether a plan is within all limits but that of latency."""
        used = usage(self.problem, widths)
        return all(used[name] <= limit for name, limit in self.problem.limits.items())

    def _out_of_reach(self, fastest: Raced) -> BudgetError:
        floor = least(self.problem, "latency").widths
        if floor != fastest.widths and self._meets_all(floor):
            fastest = min(fastest, self._raced(floor, {}), key=lambda one: one.timed.latency_ms)
        wanted_ms = self.latency.at(fastest.dense_ms, self.share)
        ratio = fastest.timed.latency_ms / fastest.dense_ms
        return BudgetError(
            f"{self.latency} is {wanted_ms:.3g} ms here and cannot be reached: the fastest plan that was measured "
            f"takes {fastest.timed.latency_ms:.3g} ms, {ratio:.2f} of the dense net's {fastest.dense_ms:.3g} ms",
            f"ask for latency={min(1.0, ratio * 1.02):.2f}x or more, or allow narrower widths (min_share, min_width)",
        )

    def _without_doubts(self, best: Raced) -> Raced:
        """`best` with the cut taken back that makes nothing faster, of those that the model expects least of."""
        problem, doubtful = self.problem, []
        for family, (ladder, width) in enumerate(zip(problem.ladders, best.widths, strict=True)):
            if width == ladder.widths[-1]:
                continue
            wider = (*best.widths[:family], ladder.widths[-1], *best.widths[family + 1 :])
            saved = usage(problem, wider)["latency"] - best.predicted_us
            if saved < DOUBTFUL * best.predicted_us and self._meets_all(wider):
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
        if timed.latency_ms > self.latency.at(dense_ms, self.share):
            return best
        undone = {**best.undone, family: (best.widths[family], wider[family])}
        return self._measured(wider, timed, dense_ms, undone)
