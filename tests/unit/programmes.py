"""Small width programmes, random ones among them, and all their answers counted one by one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import strategies as st

from edgeslim.trainer.budget.programme import Charge, Cost, Ladder, Moment, Problem, Total, exceeds, usage, value
from edgeslim.trainer.budget.programme.problem import Costs, Counts


def every(problem: Problem) -> list[tuple[int, ...]]:
    """All widths that the ladders allow."""
    return list(itertools.product(*(ladder.widths for ladder in problem.ladders)))


def allowed(problem: Problem) -> list[tuple[int, ...]]:
    """Those of them that meet every limit."""
    return [
        widths
        for widths in every(problem)
        if not any(exceeds(used, problem.limits.get(name, np.inf)) for name, used in usage(problem, widths).items())
    ]


def best(problem: Problem) -> float | None:
    """The most importance within all limits; None if nothing meets them."""
    return max((value(problem, widths) for widths in allowed(problem)), default=None)


def ladder(*widths: int, values: Sequence[float] | None = None) -> Ladder:
    """A ladder on which a channel is worth 1."""
    return Ladder(widths=widths, values=tuple(map(float, widths if values is None else values)))


def total(*families: int, constant: int = 0) -> Total:
    """The families side by side, one of them perhaps twice."""
    return Total(constant=constant, coefficients={family: families.count(family) for family in families})


def layer(outputs: Total, inputs: Total | None = None, *, name: str = "layer", **costs: Cost) -> Charge:
    """A charge of these costs."""
    return Charge(name=name, outputs=outputs, inputs=inputs or Total(), costs=costs)


def stairs(step: int, scale: float, base: float = 0.0) -> Cost:
    """What a device makes of a convolution: both widths in whole blocks, and a price for being there at all."""

    def cost(inputs: Counts, outputs: Counts) -> Costs:
        blocks = -(-np.maximum(inputs, 1) // step) * -(-outputs // step)
        return np.asarray(base + scale * blocks, np.float64)

    return cost


def jagged(seed: int, scale: float) -> Cost:
    """A cost that goes up and down without any order, and below zero."""

    def cost(inputs: Counts, outputs: Counts) -> Costs:
        return np.asarray(scale * ((inputs * 7 + outputs * 13 + inputs * outputs * 3 + seed) % 11 - 2), np.float64)

    return cost


def cost_functions(unit: float) -> st.SearchStrategy[Cost]:
    """Costs of one resource. unit: how large its numbers are; a layer's are up to a few thousand of them."""
    return st.one_of(
        st.builds(
            stairs, st.sampled_from([1, 2, 4]), st.sampled_from([0.1 * unit, unit, 30 * unit]), st.just(2.5 * unit)
        ),
        st.builds(jagged, st.integers(0, 10), st.sampled_from([0.1 * unit, unit, 100 * unit])),
    )


@st.composite
def ladders(draw: st.DrawFn) -> Ladder:
    widths = sorted(draw(st.sets(st.integers(1, 9), min_size=1, max_size=4)))
    gains = draw(st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.5]), min_size=len(widths), max_size=len(widths)))
    first = draw(st.sampled_from([-1.0, 0.0, 5.0]))
    return Ladder(widths=tuple(widths), values=tuple(float(first + gain) for gain in itertools.accumulate(gains)))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to four families; layers that read several of them, one twice, or none; up to three resources; a peak."""
    own = tuple(draw(st.lists(ladders(), min_size=1, max_size=4)))
    family = st.integers(0, len(own) - 1)
    totals = st.builds(
        Total, constant=st.integers(0, 3), coefficients=st.dictionaries(family, st.integers(1, 3), max_size=3)
    )
    names = draw(st.sampled_from([("latency_us",), ("latency_us", "macs"), ("latency_us", "macs", "parameters")]))
    units = {name: draw(st.sampled_from([1e-3, 1.0, 1e7])) for name in names}
    charges = tuple(
        Charge(
            name=f"layer {index}",
            outputs=draw(totals),
            inputs=draw(totals),
            costs={
                name: draw(cost_functions(units[name])) for name in draw(st.sets(st.sampled_from(names), min_size=1))
            },
        )
        for index in range(draw(st.integers(1, 5)))
    )
    moment = st.builds(
        Moment,
        constant=st.sampled_from([0.0, 100.0]),
        per_channel=st.dictionaries(family, st.sampled_from([0.0, 1.0, 64.0]), max_size=3),
    )
    moments = {"peak_bytes": tuple(draw(st.lists(moment, min_size=1, max_size=4)))} if draw(st.booleans()) else {}
    constants = {name: units[name] * draw(st.sampled_from([0.0, 0.7, 100.0])) for name in names}
    free = Problem(ladders=own, charges=charges, constants=constants, moments=moments)
    limits = {name: limit for name in free.resources if (limit := draw(_limits(free, name))) is not None}
    return Problem(ladders=own, charges=charges, constants=constants, moments=moments, limits=limits)


@st.composite
def _limits(draw: st.DrawFn, problem: Problem, name: str) -> float | None:
    """No limit, or one that some widths meet exactly, or a little more or less than that."""
    if draw(st.integers(0, 3)) == 0:
        return None
    widths = [draw(st.sampled_from(own.widths)) for own in problem.ladders]
    return usage(problem, widths)[name] * draw(st.sampled_from([1.0, 1.0, 1.1, 0.8, 1.0 - 1e-7]))


def with_limits(problem: Problem, limits: Mapping[str, float]) -> Problem:
    """The same problem under other limits."""
    return Problem(
        ladders=problem.ladders,
        charges=problem.charges,
        constants=problem.constants,
        moments=problem.moments,
        limits=limits,
    )
