"""The precisions of the compact net as the report shows them: what each weighs, how far it is, what it scores."""

from __future__ import annotations

from dataclasses import dataclass

from edgeslim.runtime import GroupChoice, Manifest, Variant
from edgeslim.runtime.validation import main_score
from edgeslim.runtime.variants import made_with, runs_on

from . import numbers
from .comparison import metric_name
from .numbers import BYTES, alike, difference, percent, score

_PLUS_MINUS = "{:+.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionRow:
    """One precision in words; the first row is the model itself."""

    name: str
    weights: str
    distance: str
    score: str
    change: str
    runs_on: str
    made_with: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRow:
    """One group of layers in words."""

    group: str
    precision: str
    gain: str
    interval: str
    loss: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Precisions:
    """metric: in words, "" where nothing was scored. images: "48 images", what it was scored on."""

    metric: str
    images: str
    rows: tuple[PrecisionRow, ...]
    searches: tuple[tuple[str, tuple[SearchRow, ...]], ...]


def precisions(manifest: Manifest) -> Precisions | None:
    """The section on precisions, None where the bundle has none."""
    variants = manifest.variants
    if not variants:
        return None
    main = next((name for v in variants if (name := main_score(v.model_metrics)) is not None), None)
    sizes = alike([manifest.sizes.weight_bytes, *(v.weight_bytes for v in variants)], BYTES)
    own = next((v.model_metrics[main] for v in variants if main in v.model_metrics), None) if main else None
    model = PrecisionRow(
        name="fp32", weights=sizes[0], distance="", score=score(own), change="", runs_on="any", made_with=""
    )
    seen = {v.validation_images for v in variants if v.validation_images is not None}
    return Precisions(
        metric=metric_name(main) if main else "",
        images=" or ".join(f"{count:,}" for count in sorted(seen)) + (" image" if seen == {1} else " images"),
        rows=(model, *(_row(v, size, main) for v, size in zip(variants, sizes[1:]))),
        searches=tuple((v.name, tuple(map(_choice, v.search))) for v in variants if v.search),
    )


def _row(variant: Variant, size: str, main: str | None) -> PrecisionRow:
    own, model = (scores.get(main or "") for scores in (variant.metrics, variant.model_metrics))
    return PrecisionRow(
        name=variant.name,
        weights=size,
        distance=percent(variant.deviation.relative_rms, 2),
        score=score(own),
        change=difference(model, own),
        runs_on=runs_on(variant),
        made_with=made_with(variant),
    )


def _choice(choice: GroupChoice) -> SearchRow:
    low, high = choice.gain_low_ms, choice.gain_high_ms
    known = low is not None and high is not None
    return SearchRow(
        group=choice.group,
        precision=choice.precision,
        gain=_signed(choice.gain_ms),
        interval=f"{_signed(low)} to {_signed(high)}" if known else numbers.MISSING,
        loss=difference(0.0, choice.loss) or numbers.MISSING,
        reason=choice.reason,
    )


def _signed(milliseconds: float | None) -> str:
    return numbers.words(milliseconds, _PLUS_MINUS).replace("-", "−")
