"""A measured search for the precision of every group of layers.

    all groups low -> for each: the net with this group alone in fp32, timed against it, sample by sample, and scored
    -> groups that do not make the device faster go back -> while the score is out of budget, the group that costs most
       score for its time goes back -> the whole is timed and scored again

"Faster" means that the whole interval of the ratio lies above one. What is measured is the net on its own engine, with
all fusions and conversions, never a sum of layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgeslim.errors import BudgetError, ConfigError, DataError
from edgeslim.exporter.precision import Calibration, Int8Options, Sample, open_calibration, simulate
from edgeslim.exporter.precision.judge import ROUNDING, Typed, judge, score_outputs
from edgeslim.exporter.precision.request import VariantRequest
from edgeslim.exporter.precision.variants import as_batches, make_typed, put_variants
from edgeslim.progress import Progress
from edgeslim.runtime import Bundle, GroupChoice, Variant, open_backend, read_bundle
from edgeslim.runtime.backends import Backend
from edgeslim.runtime.validation import ValidationSet, check_validation, main_score
from edgeslim.runtime.variants import Precision

from ..clock import NS_PER_MS
from ..compare import MIN_SAMPLES, interleave, speedup
from ..measure import SEED, random_frame
from ..result import Speedup, percentile
from .groups import Group, neighbours

OpenGraph = Callable[[bytes], Backend]
"""ONNX bytes -> the net on the device's engine, ready to run."""
_WARM_RUNS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How it is searched. samples, seconds: of every comparison, as in `edgeslim.bench.measure`."""

    groups: int = 12
    samples: int = 60
    seconds: float = 10.0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise ConfigError(f"groups is {self.groups}; it must be at least 1", "12 is usual")
        if self.samples < MIN_SAMPLES:
            raise ConfigError(f"samples is {self.samples}, the least is {MIN_SAMPLES}", "60 is usual")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """What stays the same while it searches."""

    bundle: Bundle
    model: ir.Model
    request: VariantRequest
    int8: Int8Options
    calibration: Calibration
    validation: ValidationSet
    options: SearchOptions
    open_graph: OpenGraph
    score: str
    layers: frozenset[str] = frozenset()
    """All that can be int8."""

    @property
    def rest(self) -> Precision:
        """What a group is that is not int8."""
        return "fp16" if self.request.half else "fp32"

    def typed(self, floats: Sequence[Group]) -> Typed:
        """The graph without these groups in int8; where that are all, the model as it is."""
        kept = self.int8.keep_float | {name for group in floats for name in group.layers}
        if floats and kept >= self.layers:
            return Typed(model=self.model, layers=(), notes={}, settings={})
        options = replace(self.int8, keep_float=kept)
        return make_typed(self.model, replace(self.request, options=options), self.calibration)

    def scored(self, model: ir.Model) -> float:
        """The main score on the validation images; 0 where the net leaves nothing to count."""
        return score_outputs(self.request.open(model), self.bundle, self.validation).get(self.score, 0.0)

    def compared(self, slower: ir.Model, faster: ir.Model) -> tuple[Speedup, float]:
        """How much faster the second is, and the median of it in ms."""
        manifest, entry = self.bundle.manifest, self.bundle.manifest.inputs[0]
        frame = random_frame(manifest.bench_size, manifest.image.channels)
        feeds = {entry.name: np.stack([frame] * (entry.shape[0] if isinstance(entry.shape[0], int) else 1))}
        with ExitStack() as stack:
            nets = [stack.enter_context(self.open_graph(_bytes(model))) for model in (slower, faster)]
            calls = [functools.partial(net.run, feeds) for net in nets]
            for call in calls:
                for _ in range(_WARM_RUNS):
                    call()
            before, after = interleave(calls, samples=self.options.samples, seconds=self.options.seconds)
        return speedup(before, after, seed=SEED), percentile(after, 50) / NS_PER_MS


def search_precision(
    bundle: Path,
    request: VariantRequest,
    frames: Sequence[Sample],
    validation: ValidationSet,
    *,
    images: int | None = None,
    options: SearchOptions | None = None,
    open_graph: OpenGraph | None = None,
    progress: Progress,
) -> Variant:
    """Choose which groups of layers are int8, put the variant into the bundle, and return its record.

    request: of int8; its `most_loss` is the budget.  frames: calibration frames.  open_graph: how a candidate runs on
    the device that counts, ONNX Runtime on this CPU where None.
    Raises ConfigError for another precision, DataError without a score, BudgetError where no mixture is faster and
    within the budget, UnsupportedGraphError where nothing can be int8.
    """
    if not isinstance(request.options, Int8Options):
        raise ConfigError("only int8 is searched group by group", "float16 has its islands by a range check")
    whole, chosen = read_bundle(bundle), options or SearchOptions()
    check_validation(validation, whole.manifest, str(whole.path))
    progress.stage(f"precision {request.name}")
    model = ir.from_proto(onnx.load_model_from_string(whole.model))
    calibration = open_calibration(model, as_batches(frames, whole.manifest), images)
    scores = score_outputs(simulate(model), whole, validation)
    main = main_score(scores)
    if main is None:
        raise DataError("the validation set has no answer to score by", "give targets that are not all unlabelled")
    search = _Search(
        bundle=whole,
        model=model,
        request=request,
        int8=request.options,
        calibration=calibration,
        validation=validation,
        options=chosen,
        open_graph=open_graph or (lambda graph: open_backend("onnxruntime", graph, threads=chosen.threads)),
        score=main,
    )
    typed, choices = _choose(search, scores[main], progress)
    variant = judge(whole, model, typed, request, calibration, validation, choices)
    put_variants(bundle, whole, (variant,), {variant.file: _bytes(typed.model)})
    return variant


def _choose(search: _Search, wanted: float, progress: Progress) -> tuple[Typed, tuple[GroupChoice, ...]]:
    """The best mixture, and the table of what each group gained and lost. Raises BudgetError where none is faster."""
    low = search.typed(())
    search = replace(search, layers=frozenset(low.layers))
    lowest = search.scored(low.model)
    groups = neighbours(low.layers, search.options.groups)
    progress.stage("precision search", len(groups))
    rows: list[GroupChoice] = []
    for number, group in enumerate(groups):
        mixed = search.typed((group,))
        ratio, low_ms = search.compared(mixed.model, low.model)
        loss = search.scored(mixed.model) - lowest
        rows.append(_row(group, ratio, low_ms, loss, search.rest))
        progress.step(number + 1, {search.score: lowest + loss})
    if all(row.precision != "int8" for row in rows):  # neighbours share conversions: perhaps all together pay
        rows = [replace(row, precision="int8", reason="no group pays by itself, all together may") for row in rows]
    typed = _within_budget(search, groups, rows, wanted)
    kept = sum(row.precision == "int8" for row in rows)
    if not kept:
        raise BudgetError(
            f"no layer of {search.bundle.manifest.name} can be int8 with {search.score} at most "
            f"{search.request.allowed_loss:g} below {wanted:.4f}",
            "allow a larger loss, give more calibration images, or ship fp16; the bundle is as it was",
        )
    ratio, milliseconds = search.compared(search.model, typed.model)
    if ratio.low <= 1.0:
        raise BudgetError(
            f"int8 does not make {search.bundle.manifest.name} faster here: the best mixture is {ratio.ratio:.2f}x as "
            f"fast as fp32 ({ratio.low:.2f} to {ratio.high:.2f})",
            "ship fp32 or fp16 here, or search on the device that will run it; the bundle is as it was",
        )
    progress.note(f"{kept} of {len(groups)} groups are int8, {ratio.ratio:.2f}x as fast as fp32")
    loss = wanted - search.scored(typed.model)
    whole = replace(
        _row(Group(name="the whole net", layers=()), ratio, milliseconds, loss, search.rest),
        reason="beside fp32 throughout",
    )
    return typed, (*rows, whole)


def _within_budget(search: _Search, groups: Sequence[Group], rows: list[GroupChoice], wanted: float) -> Typed:
    """The graph whose score is within the budget; groups go back to fp32 in `rows` until it is, or none is left."""
    while True:
        floats = [group for group, row in zip(groups, rows) if row.precision != "int8"]
        typed = search.typed(floats)
        missing = wanted - search.scored(typed.model) - search.request.allowed_loss
        if missing <= ROUNDING or len(floats) == len(groups):
            return typed
        index = _dearest(rows)
        reason = f"the score was {missing:.4f} short of its budget, and this group lost most for its time"
        rows[index] = replace(rows[index], precision=search.rest, reason=reason)


def _row(group: Group, ratio: Speedup, low_ms: float, loss: float, rest: Precision) -> GroupChoice:
    """ratio: of the net without this group in int8 to the one with all groups low."""
    pays = ratio.low > 1.0
    return GroupChoice(
        group=group.name,
        layers=group.layers,
        precision="int8" if pays else rest,
        gain_ms=(ratio.ratio - 1.0) * low_ms,
        gain_low_ms=(ratio.low - 1.0) * low_ms,
        gain_high_ms=(ratio.high - 1.0) * low_ms,
        loss=loss,
        reason="the net is faster with it" if pays else "the net is not measurably faster with it",
    )


def _dearest(rows: Sequence[GroupChoice]) -> int:
    """The group, still low, that loses most score for the time it gains."""
    left = [i for i, row in enumerate(rows) if row.precision == "int8"]
    return max(left, key=lambda i: (rows[i].loss or 0.0) / max(rows[i].gain_ms or 0.0, 1e-6))


def _bytes(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString())
