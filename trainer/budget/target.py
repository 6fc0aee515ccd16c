"""A budget that is a target on a device: time, work, size and memory, jointly.

    candidate widths    from the device's staircase
    device profile      what layers of these widths take there, measured where it is missing
    programme           the widths that keep the most importance within the limits
    approach            plan, measure, correct, until the net that really runs is within the target

What is returned was measured, unless the device is not here: then it is a prediction, and `Reached` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgeslim.bench.profile import (
    CollectOptions,
    LatencyModel,
    Place,
    Step,
    Timed,
    Widths,
    WidthSpace,
    at_usual_speed,
    candidate_widths,
    collect,
    find_step,
    fit_latency,
    measure_staircase,
)
from edgeslim.errors import InvariantError
from edgeslim.exporter.channels import ChannelMap
from edgeslim.progress import Progress

from .approach import Approach, Raced
from .costs import Costs, count_costs, count_plan
from .counted import MOST_TRIED, CountedPlans
from .ladders import Ids, by_score, ladder_of
from .limits import WidthLimits
from .memo import Memo, memo_key
from .programme import Ladder, OutOfReach, Problem
from .reached import Reached, level_words
from .targets import Limit
from .unreachable import in_words

_DEFAULT_STEP = Step(multiple=8)
"""Of widths where nothing is timed."""

Orders = Sequence[Ids]
"""Of every family the labels, those that stay longest first."""


@dataclass(kw_only=True)
class Target:
    """Made for one net on one device; what it learns of them serves every call of `select`.

    limits: by `parse_target` from `text`.  shape: (N, C, H, W) of the image at which all counts.  place: None where no
    latency is limited.  takes_frames: see WidthSpace.  part: of the way to the limits, that is to be gone.  options,
    seconds: of the profile, and of one race.
    """

    limits: Sequence[Limit]
    text: str
    channels: ChannelMap
    shape: tuple[int, ...]
    place: Place | None
    widths: WidthLimits
    min_share: float
    progress: Progress
    memo: Memo
    takes_frames: bool = True
    part: float = 1.0
    options: CollectOptions = field(default_factory=CollectOptions)
    seconds: float = 3.0
    reached: Reached | None = None
    """What the last plan takes."""

    def select(self, channels: ChannelMap, scores: NDArray[np.float64], share: float = 1.0) -> frozenset[int]:
        """Labels of the units to cut when `share` in (0, 1] of the way to the target is to be gone.

        scores: (units,) in the order of `channels.unit_labels`; a unit of infinite score stays, one of -infinite score
        has left already. Raises BudgetError, with what can be reached, for a target out of reach, DeviceError where
        measurements do not settle or a foreign profile knows too little.
        """
        share *= self.part
        key = memo_key(scores, share, *self._question)
        remembered = self.memo.recall(key)
        if remembered is not None and remembered[0].issubset(channels.unit_labels.tolist()):
            cut, self.reached = remembered
            self.memo.keep(key, cut, self.reached)  # the last that was used is the last in there
            return cut
        units = by_score(channels, scores)
        problem = self._problem([ladder_of(own, self.space.candidates[i]) for i, (_, own) in enumerate(units)], share)
        orders = [own for own, _ in units]
        counted = CountedPlans(
            limits=problem.limits,
            count=lambda widths: count_plan(self.space, self.space.cut(widths, orders), problem.limits),
        )
        try:
            widths, reached = self._search(problem, share, counted, orders)
        except OutOfReach as error:
            real = self._as_counted(error, counted)
            raise in_words(real, self.limits, self.costs.usage(self.space.dense), share) from error
        cut = self.space.cut(widths, orders)
        self.reached = replace(reached, untouched=not cut)
        for undone in reached.undone:
            self.progress.note(f"taken back, for the target is met without it: {undone}")
        if counted.untried:
            self.progress.note(f"{MOST_TRIED} wider plans were counted, more are left: a wider one may fit, too")
        self.progress.note(str(self.reached))
        self.memo.keep(key, cut, self.reached)
        return cut

    @cached_property
    def space(self) -> WidthSpace:
        """The plans to choose from."""
        step = _DEFAULT_STEP
        if self._latency is not None:
            step = find_step(measure_staircase(self._placed, self.progress))
        candidates = candidate_widths(
            self.channels.families,
            step,
            width_multiple=self.widths.multiple,
            min_width=self.widths.minimum,
            min_share=self.min_share,
        )
        return WidthSpace(
            channels=self.channels, candidates=candidates, shape=self.shape, takes_frames=self.takes_frames
        )

    @cached_property
    def model(self) -> LatencyModel | None:
        """The latency of any plan; None where none is limited."""
        if self._latency is None:
            return None
        plans = collect(self.space, self._placed, self.progress, self.options)
        model = fit_latency(self.space, self._placed.profile, self._placed.fingerprint, plans)
        if model.error is not None:
            self.progress.note(
                f"latency model: {model.error.plans} plans that it had not seen were predicted within "
                f"{model.error.median:.1%} in the median, {model.error.worst:.1%} at worst"
            )
        return model

    @cached_property
    def costs(self) -> Costs:
        """All that the limits speak of."""
        return count_costs(self.space, {limit.resource for limit in self.limits}, self.model)

    @cached_property
    def _usual_ms(self) -> float:
        """What the dense net took when the profile was measured; by the model where it is not in there."""
        place = self._placed
        stored = place.profile.net(place.fingerprint, self.space.digest(self.space.dense))
        base = place.profile.reference_us(place.fingerprint)
        measured = None if stored is None or base is None else stored.latency_at(base)
        return (self.costs.usage(self.space.dense)["latency"] if measured is None else measured) / 1e3

    @property
    def _question(self) -> tuple[str, ...]:
        """All that a plan depends on beside scores, and nothing that is measured: it is asked again after a pause."""
        place = self.place
        families = [(family.name, family.width) for family in self.channels.families]
        return (
            self.text,
            "" if place is None else place.fingerprint.digest,
            "foreign" if place is not None and place.foreign else "here",
            repr((families, self.shape, self.takes_frames, self.widths, self.min_share)),
        )

    @property
    def _latency(self) -> Limit | None:
        return next((limit for limit in self.limits if limit.resource == "latency"), None)

    @property
    def _placed(self) -> Place:
        if self.place is None:
            raise InvariantError("a latency is limited on no device")
        return self.place

    def _problem(self, ladders: Sequence[Ladder], share: float) -> Problem:
        """With all limits but that of latency, which is neared by measuring."""
        dense = self.costs.usage(self.space.dense)
        limits: dict[str, float] = {
            limit.resource: limit.at(dense[limit.resource], share)
            for limit in self.limits
            if limit.resource != "latency"
        }
        return replace(self.costs.problem(ladders), limits=limits)

    def _search(self, problem: Problem, share: float, counted: CountedPlans, orders: Orders) -> tuple[Widths, Reached]:
        latency = self._latency
        if latency is not None and self._placed.foreign:
            predicted_us = self.costs.usage(self.space.dense)["latency"]
            most_us = min(predicted_us, latency.at(predicted_us, share))
            problem = replace(problem, limits={**problem.limits, "latency": most_us})
        if latency is None or self._placed.foreign:
            widened = counted.best(problem)
            undone = {step.family: (step.before, step.after) for step in widened.undone}
            return widened.widths, self._reached(widened.widths, share, counted, undone)
        dense_us = self.costs.usage(self.space.dense)["latency"]
        raced = Approach(
            problem=problem,
            dense_us=dense_us,
            latency=latency,
            share=share,
            race=lambda plans: self._race(plans, orders),
            counted=counted,
        ).run()
        return raced.widths, self._reached(raced.widths, share, counted, raced.undone, raced)

    def _as_counted(self, error: OutOfReach, counted: CountedPlans) -> OutOfReach:
        """The same with what graphs really take. Of memory the programme has a guess: its bound is what was seen."""
        least = dict(error.least)
        for name, own in error.least.items():
            if name in counted.limits:
                used = counted.taken(own.widths)[name]
                bound = counted.least_seen(name) if name == "memory" else min(own.bound, used)
                least[name] = replace(own, used=used, bound=bound)
        return OutOfReach(error.message, error.hint, least)

    def _race(self, plans: Sequence[Widths], orders: Orders) -> tuple[float, tuple[Timed, ...]]:
        """The dense net and these plans, sample by sample."""
        space, observer = self.space, self._placed.observer
        if observer is None:
            raise InvariantError("a device that is not here cannot race")
        graphs = [space.graph(space.cut(widths, orders)) for widths in plans if widths != space.dense]
        self.progress.stage("plan against dense net")
        timed = at_usual_speed(
            lambda: observer.race([space.graph(frozenset()), *graphs], space.feeds, self.seconds), self._usual_ms
        )
        others = iter(timed[1:])
        return timed[0].latency_ms, tuple(timed[0] if widths == space.dense else next(others) for widths in plans)

    def _reached(
        self,
        widths: Widths,
        share: float,
        counted: CountedPlans,
        undone: Mapping[int, tuple[int, int]],
        raced: Raced | None = None,
    ) -> Reached:
        predicted_us = self.costs.usage(widths).get("latency")
        names = [family.name for family in self.channels.families]
        found = Reached(
            target=level_words(self.text, share),
            size=(self.shape[2], self.shape[3]) if len(self.shape) == 4 else None,
            device="" if self.place is None else str(self.place.fingerprint),
            device_digest="" if self.place is None else self.place.fingerprint.digest,
            foreign=self.place is not None and self.place.foreign,
            predicted_ms=None if predicted_us is None else predicted_us / 1e3,
            model_error=None
            if self.model is None or self.model.error is None
            else (self.model.error.median, self.model.error.worst),
            usage=dict(counted.taken(widths)),
            undone=tuple(f"{names[f]} from {before} to {now}" for f, (before, now) in sorted(undone.items())),
        )
        if raced is None:
            return found
        faster = raced.timed.against_first
        return replace(
            found,
            latency_ms=raced.timed.latency_ms,
            dense_ms=raced.dense_ms,
            ratio=1.0 / faster.ratio,
            ratio_low=1.0 / faster.high,
            ratio_high=1.0 / faster.low,
        )
