"""What a plan for a target takes on its device: measured where the device is here, predicted where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .targets import amount_in_words


def level_words(target: str, share: float) -> str:
    """How a target is called of which `share` of the way is to be gone."""
    return target if share == 1.0 else f"{share:.3g} of the way to {target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """target: by `level_words`.  size: (height, width) of the frame at which all counts.

    latency_ms, dense_ms: measured side by side; None where nothing was, for the device is not here.

    ratio: latency / dense, with its interval.  predicted_ms: by the latency model.  model_error: (median, worst) error
    of that model, as shares.  usage: of the other resources, counted.  undone: cuts that were taken back.
    narrowed: more was cut since, so the net takes no more than this.
    untouched: the net met the target as it was, and nothing was cut for it.
    """

    target: str
    device: str
    device_digest: str
    foreign: bool
    latency_ms: float | None = None
    dense_ms: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    predicted_ms: float | None = None
    model_error: tuple[float, float] | None = None
    usage: Mapping[str, float] = field(default_factory=dict)
    undone: tuple[str, ...] = ()
    narrowed: bool = False
    untouched: bool = False
    size: tuple[int, int] | None = None

    @property
    def origin(self) -> dict[str, str]:
        """What a manifest says of it."""
        words = {"target": str(self)}
        if self.device_digest:
            words["device_profile"] = self.device_digest
        if self.foreign:
            words["foreign_profile"] = (
                f"planned by the profile of {self.device}, which was not there: nothing was timed"
            )
        return words

    def __str__(self) -> str:
        parts = [f"{name} {amount_in_words(name, amount)}" for name, amount in self.usage.items()]
        if self.latency_ms is not None and self.ratio is not None:
            parts.insert(0, f"{self.latency_ms:.3g} ms, {self.ratio:.3f} of the dense net's {self.dense_ms:.3g} ms")
        elif self.predicted_ms is not None:
            parts.insert(0, f"{self.predicted_ms:.3g} ms predicted, not measured")
        if self.narrowed:
            parts.append("more was cut since")
        if self.untouched:
            parts.append("nothing was cut, for the net met it as it was")
        size = "" if self.size is None else f" at {self.size[0]}x{self.size[1]}"
        return f"{self.target}{size}{f' on {self.device}' if self.device else ''}: {'; '.join(parts)}"
