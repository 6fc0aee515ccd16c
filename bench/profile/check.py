"""How well a latency model predicts: random plans, predicted and then measured beside the dense net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeslim.errors import ConfigError

from .find import Place
from .latency_model import LatencyModel, ModelError
from .space import Widths, WidthSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One plan. predicted, measured: latency as a share of the dense net's.  low, high: of the latter."""

    widths: Widths
    predicted: float
    measured: float
    low: float
    high: float
    dense_ms: float

    @property
    def error(self) -> float:
        """Signed, as a share of what was measured."""
        return self.predicted / self.measured - 1.0


def check_model(
    space: WidthSpace,
    place: Place,
    model: LatencyModel,
    *,
    plans: int = 30,
    seed: int = 1,
    seconds: float = 3.0,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Checked, ...]:
    """Predict and measure `plans` plans whose widths are drawn from the candidates, each as likely as any other.

    seconds: of each comparison.  told(done, total): between them. Raises ConfigError for a device that is not here,
    DeviceError where measurements do not settle.
    """
    observer = place.observer
    if observer is None:
        raise ConfigError(f"{place.fingerprint} is not here: nothing can be measured on it", "check it there")
    if plans < 1:
        raise ConfigError(f"plans is {plans}; it must be at least 1", "30 is usual")
    generator = np.random.default_rng(seed)
    dense, found = space.graph(frozenset()), []
    dense_us = model.predict(space.dense)
    for number in range(plans):
        widths = tuple(int(generator.choice(own)) for own in space.candidates)
        first, timed = observer.race([dense, space.graph(space.cut(widths))], space.feeds, seconds)
        faster = timed.against_first
        found.append(
            Checked(
                widths=widths,
                predicted=model.predict(widths) / dense_us,
                measured=1.0 / faster.ratio,
                low=1.0 / faster.high,
                high=1.0 / faster.low,
                dense_ms=first.latency_ms,
            )
        )
        told(number + 1, plans)
    return tuple(found)


def summary(checked: tuple[Checked, ...]) -> ModelError:
    """The median and the worst error."""
    errors = [abs(one.error) for one in checked]
    return ModelError(median=float(np.median(errors)), worst=max(errors), plans=len(errors))
