"""What a run achieved: dense against compact, figure by figure, and the verdict in words.

The verdict is as plain when a run failed as when it worked. A net is "faster" only if the whole interval of the
speed-up lies above 1, and "slower" only if all of it lies below. A metric that fell by more than `NOTABLE_DROP` is
called a fall, in the headline if it is the main one and in the warnings if it is another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgeslim.runtime.certificate import Certificate
from edgeslim.runtime.manifest import Manifest, Sizes

from ..result import BenchResult, Side
from . import numbers
from .numbers import BYTES, COUNTS, MILLISECONDS, alike, count, percent, score

NOTABLE_DROP = 0.01
"""What edgeslim promises to stay within, in units of the metric."""
FEW_CLASSES = 3
"""So many classes that fell are listed one by one."""
SLIGHT_SPEEDUP = 1.1
"""Below this a speed-up is real, yet hardly worth a change of net."""
_PREFERRED = ("dice", "miou", "iou", "accuracy")
_NAMES = {"dice": "Dice", "iou": "IoU", "miou": "mean IoU", "auc": "AUC", "top5": "top-5 accuracy"}
_OF_CLASS = {"iou_": "IoU of ", "accuracy_": "accuracy of "}

Tone = Literal["good", "caution", "bad", "plain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One finding. text: its part of the headline; value and detail: its card."""

    topic: str
    tone: Tone
    text: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of both nets; `change` is the ratio in words, or the difference."""

    label: str
    dense: str
    compact: str
    change: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Figures that belong together."""

    title: str
    rows: tuple[Row, ...]


def metric_name(name: str) -> str:
    """How a metric is written for people: "miou" is "mean IoU", "iou_car" is "IoU of car"."""
    for prefix, words in _OF_CLASS.items():
        if name.startswith(prefix):
            return words + name.removeprefix(prefix)
    return _NAMES.get(name, name.replace("_", " "))


def is_of_class(name: str) -> bool:
    """Whether a metric is of a single class."""
    return name.startswith(tuple(_OF_CLASS))


def main_metric(scores: Sequence[Mapping[str, float]]) -> str | None:
    """The metric by which to judge: the preferred one that all of `scores` have, else the first that all have."""
    shared = [name for name in scores[0] if all(name in table for table in scores)] if scores else []
    return next((name for name in _PREFERRED if name in shared), shared[0] if shared else None)


def verdicts(dense: Manifest, compact: Manifest, bench: BenchResult) -> tuple[Verdict, ...]:
    """Speed, accuracy, size and proof, in the order of the headline."""
    return (
        _speed(bench),
        _accuracy(dense.metrics, compact.metrics),
        _size(dense, compact, bench),
        _proof(compact.certificate),
    )


def headline(verdicts: Sequence[Verdict]) -> str:
    """One sentence, without its full stop."""
    text = ", ".join(verdict.text for verdict in verdicts if verdict.text)
    return text[:1].upper() + text[1:]


def findings(dense: Manifest, compact: Manifest, bench: BenchResult) -> tuple[str, ...]:
    """What the figures themselves warn of, beyond what the benchmark already said."""
    found = list(_falls(dense.metrics, compact.metrics))
    if dense.certificate.stages and not dense.certificate.passed:
        found.append("the proof of the dense net failed, so the comparison stands on a net that was not trained")
    if bench.against is not None and min(bench.against.latency.n, bench.subject.latency.n) < 100:
        found.append("with fewer than 100 samples the p99 is the slowest sample")
    return tuple(found)


def _falls(dense: Mapping[str, float], compact: Mapping[str, float]) -> Iterator[str]:
    """Every metric but the main one that fell; single classes in one sentence where there are more than a few."""
    main = main_metric([dense, compact])
    fallen = {n: b - compact[n] for n, b in dense.items() if n != main and n in compact and _fell(b, compact[n])}
    for prefix, words in _OF_CLASS.items():
        classes = [name for name in fallen if name.startswith(prefix)]
        if len(classes) > FEW_CLASSES:
            worst = max(classes, key=lambda name: fallen[name])
            yield (
                f"{words}a class fell by more than {NOTABLE_DROP:g} in {len(classes)} of "
                f"{sum(name.startswith(prefix) for name in dense)} classes, the most in "
                f"{worst.removeprefix(prefix)}, from {score(dense[worst])} to {score(compact[worst])}"
            )
            fallen = {name: drop for name, drop in fallen.items() if name not in classes}
    for name, drop in fallen.items():
        yield f"{metric_name(name)} fell from {score(dense[name])} to {score(compact[name])}, by {drop:.4f}"


def _speed(bench: BenchResult) -> Verdict:
    speed, side = bench.speedup, bench.subject.latency
    if speed is None or bench.against is None:
        median = numbers.quantity(side.p50_ms, MILLISECONDS)
        text, detail = f"{median} a frame (not compared with the dense net)", f"Median {median} a frame."
        return Verdict(topic="Speed", tone="caution", text=text, value="not compared", detail=detail)
    before, after = alike([bench.against.latency.p50_ms, side.p50_ms], MILLISECONDS)
    close = any(abs(value - 1.0) < 0.05 for value in (speed.ratio, speed.low, speed.high))
    decimals = 3 if close else 2
    ratio, low, high = (numbers.factor(value, decimals) for value in (speed.ratio, speed.low, speed.high))
    tone: Tone = "good"
    value = f"{ratio}× faster"
    if speed.ratio < SLIGHT_SPEEDUP:
        tone, value = "caution", f"only {value}"
    if speed.high < 1.0:
        ratio, low, high = (numbers.factor(1 / r, decimals) for r in (speed.ratio, speed.high, speed.low))
        tone, value = "bad", f"{ratio}× slower"
    interval = f"{100 * speed.confidence:g} % interval {low}–{high}"
    text = f"{value} ({interval})"
    if speed.low <= 1.0 <= speed.high:
        tone, value = "bad", "not measurably faster"
        text = f"{value} ({ratio}×, {interval})"
    detail = f"Median {before} → {after} a frame; {interval}."
    return Verdict(topic="Speed", tone=tone, text=text, value=value, detail=detail)


def _accuracy(dense: Mapping[str, float], compact: Mapping[str, float]) -> Verdict:
    name = main_metric([dense, compact])
    if name is None:
        text, detail = "accuracy not measured", "No metric is known of both nets."
        return Verdict(topic="Accuracy", tone="caution", text=text, value=numbers.MISSING, detail=detail)
    before, after = dense[name], compact[name]
    label, change = metric_name(name), numbers.difference(before, after)
    value = f"{label} {score(after)}"
    if _fell(before, after):
        text = f"{label} fell {score(before)} → {score(after)}"
        detail = f"{score(before)} dense: fell by {before - after:.4f} on the test images, more than {NOTABLE_DROP:g}."
        return Verdict(topic="Accuracy", tone="bad", text=text, value=value, detail=detail)
    text, detail = f"{label} {score(before)} → {score(after)}", f"{score(before)} dense: {change} on the test images."
    return Verdict(topic="Accuracy", tone="good", text=text, value=value, detail=detail)


def _fell(before: float, after: float) -> bool:
    return round(before - after, 9) > NOTABLE_DROP  # 0.56 - 0.55 is 0.01 to people


def _size(dense: Manifest, compact: Manifest, bench: BenchResult) -> Verdict:
    before, after = _file_bytes(dense, bench.against), _file_bytes(compact, bench.subject)
    files = " → ".join(alike([before, after], BYTES))
    weights = f"{count(dense.sizes.parameters)} → {count(compact.sizes.parameters)}"
    value = numbers.times(dense.sizes.parameters, compact.sizes.parameters, "smaller", "larger")
    detail = f"Parameters {weights}; model file {files}."
    return Verdict(topic="Size", tone="plain", text="", value=value, detail=detail)


def _proof(certificate: Certificate) -> Verdict:
    stages, passed = certificate.stages, certificate.passed
    if not stages:
        text, detail = "no proof", "The certificate holds no comparison."
        return Verdict(topic="Proof", tone="bad", text=text, value="missing", detail=detail)
    failed = sum(not stage.passed for stage in stages)
    if not passed:
        detail = f"{failed} of {len(stages)} comparisons with the masked net failed: do not ship this bundle."
        return Verdict(topic="Proof", tone="bad", text="PROOF FAILED", value="failed", detail=detail)
    worst = max(stage.max_abs or 0.0 for stage in stages)
    held = "1 comparison" if len(stages) == 1 else f"All {len(stages)} comparisons"
    detail = f"{held} with the masked net held; largest absolute error {numbers.error(worst)}."
    return Verdict(topic="Proof", tone="good", text="proof passed", value="passed", detail=detail)


def comparison(dense: Manifest, compact: Manifest, bench: BenchResult) -> tuple[Group, ...]:
    """The table of figures, grouped. What was not measured says so; it is never 0."""
    names = dict.fromkeys((*dense.metrics, *compact.metrics))
    accuracy = [_score_row(name, dense.metrics.get(name), compact.metrics.get(name)) for name in names]
    return (
        Group(title="Accuracy on the test images", rows=tuple(accuracy)),
        Group(title="Size", rows=_size_rows(dense, compact, bench)),
        Group(title="Latency of one frame", rows=_latency_rows(bench.against, bench.subject)),
        Group(title="Memory (kinds overlap, do not add them up)", rows=_memory_rows(bench.against, bench.subject)),
    )


def _score_row(name: str, before: float | None, after: float | None) -> Row:
    change = numbers.difference(before, after)
    return Row(label=metric_name(name), dense=score(before), compact=score(after), change=change)


def _size_rows(dense: Manifest, compact: Manifest, bench: BenchResult) -> tuple[Row, ...]:
    a, b = dense.sizes, compact.sizes
    shape = b.macs_shape or a.macs_shape
    comparable = a.macs_shape == b.macs_shape
    label = "Multiply-accumulates" + (f", input {_shape(shape)}" if shape and comparable else "")
    macs = alike([a.macs, b.macs], COUNTS)
    if shape and not comparable:
        macs = [f"{text} at {_shape(s)}" if s else text for text, s in zip(macs, (a.macs_shape, b.macs_shape))]
    fewer = numbers.times(a.macs, b.macs, "fewer", "more") if comparable else ""
    return (
        Row(
            label="Parameters",
            dense=count(a.parameters),
            compact=count(b.parameters),
            change=numbers.times(a.parameters, b.parameters, "fewer", "more"),
        ),
        *_living_rows(a, b),
        Row(label=label, dense=macs[0], compact=macs[1], change=fewer),
        _bytes_row("Weights", a.weight_bytes, b.weight_bytes),
        _bytes_row("Model file", _file_bytes(dense, bench.against), _file_bytes(compact, bench.subject)),
    )


def _living_rows(dense: Sizes, compact: Sizes) -> tuple[Row, ...]:
    """The weights that are not zero, of a net some of whose weights are."""
    before, after = dense.nonzero_weights, compact.nonzero_weights
    if after is None or after == compact.weights:
        return ()
    change = numbers.times(before, after, "fewer", "more")
    return (Row(label="Weights that are not zero", dense=count(before), compact=count(after), change=change),)


def _latency_rows(dense: Side | None, compact: Side) -> tuple[Row, ...]:
    rows = []
    for label, name in (("p50 (median)", "p50_ms"), ("p90", "p90_ms"), ("p99", "p99_ms"), ("Fastest", "min_ms")):
        before, after = (None if side is None else float(getattr(side.latency, name)) for side in (dense, compact))
        texts = alike([before, after], MILLISECONDS)
        change = numbers.times(before, after, "faster", "slower")
        rows.append(Row(label=label, dense=texts[0], compact=texts[1], change=change))
    before, after = (None if side is None else side.latency.spread for side in (dense, compact))
    rows.append(Row(label="Spread (middle half / median)", dense=percent(before), compact=percent(after)))
    taken = count(None if dense is None else dense.latency.n)
    rows.append(Row(label="Samples n", dense=taken, compact=count(compact.latency.n)))
    rows.append(Row(label="Warm-up", dense=_warm_up(dense), compact=_warm_up(compact)))
    return tuple(rows)


def _memory_rows(dense: Side | None, compact: Side) -> tuple[Row, ...]:
    arena = {
        "Arena, most in use": "peak_bytes",
        "Arena, held from the system": "held_bytes",
        "Activations": "activation_bytes",
        "Weights packed for the kernels": "packed_weight_bytes",
    }
    peaks = [None if side is None else side.memory.peak_rss_bytes for side in (dense, compact)]
    return (
        _bytes_row("Peak memory (growth of a fresh process)", *peaks),
        *(_bytes_row(label, _arena(dense, name), _arena(compact, name)) for label, name in arena.items()),
    )


def _arena(side: Side | None, name: str) -> int | None:
    arena = None if side is None else side.memory.arena
    return None if arena is None else int(getattr(arena, name))


def _bytes_row(label: str, before: int | None, after: int | None) -> Row:
    texts = alike([before, after], BYTES)
    change = numbers.times(before, after, "smaller", "larger")
    return Row(label=label, dense=texts[0], compact=texts[1], change=change)


def _file_bytes(manifest: Manifest, side: Side | None) -> int | None:
    """The model file's size: as measured, else as the manifest lists it."""
    if side is not None:
        return side.memory.file_bytes
    entry = manifest.files.get(manifest.stored_model)
    return entry.bytes if entry else None


def _warm_up(side: Side | None) -> str:
    if side is None:
        return numbers.MISSING
    warm = side.warm_up
    calls = "1 run" if warm.calls == 1 else f"{warm.calls:,} runs"
    return f"{calls}, {'settled' if warm.settled else 'not settled'}"


def _shape(shape: Sequence[int | str]) -> str:
    return "×".join(map(str, shape))
