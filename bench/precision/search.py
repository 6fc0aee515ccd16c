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
from edgeslim.exporter.bundle import amend_bundle
from edgeslim.exporter.precision import Calibration, Int8Options, Sample, open_calibration, simulate
from edgeslim.exporter.precision.variants import (
    MOST_LOSS,
    Typed,
    VariantRequest,
    as_batches,
    judge,
    make_typed,
    score_outputs,
)
from edgeslim.progress import Progress
from edgeslim.runtime import Bundle, GroupChoice, Variant, open_backend, read_bundle
from edgeslim.runtime.backends import Backend
from edgeslim.runtime.validation import ValidationSet, main_score

from ..clock import NS_PER_MS
from ..compare import MIN_SAMPLES, interleave, speedup
from ..measure import SEED
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
    calibration: Calibration
    validation: ValidationSet
    options: SearchOptions
    open_graph: OpenGraph
    score: str

    def typed(self, floats: Sequence[Group]) -> Typed:
        """The graph with these groups in fp32."""
        options = self.request.options
        assert isinstance(options, Int8Options)
        kept = options.keep_float | {name for group in floats for name in group.layers}
        return make_typed(
            self.model, replace(self.request, options=replace(options, keep_float=kept)), self.calibration
        )

    def scored(self, model: ir.Model) -> float:
        """The main score on the validation images."""
        return score_outputs(simulate(model), self.bundle, self.validation)[self.score]

    def compared(self, slower: ir.Model, faster: ir.Model) -> tuple[Speedup, float]:
        """How much faster the second is, and the median of it in ms."""
        size = (1, *self.bundle.manifest.bench_size, self.bundle.manifest.image.channels)
        fixed = self.bundle.manifest.inputs[0].shape[0]
        size = (fixed, *size[1:]) if isinstance(fixed, int) else size
        feeds = {
            self.bundle.manifest.inputs[0].name: np.random.default_rng(SEED).integers(0, 256, size, dtype=np.uint8)
        }
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
    model = ir.from_proto(onnx.load_model_from_string(whole.model))
    calibration = open_calibration(model, as_batches(frames), images)
    scores = score_outputs(simulate(model), whole, validation)
    main = main_score(scores)
    if main is None:
        raise DataError("the validation set has no answer to score by", "give targets that are not all unlabelled")
    search = _Search(
        bundle=whole,
        model=model,
        request=request,
        calibration=calibration,
        validation=validation,
        options=chosen,
        open_graph=open_graph or (lambda graph: open_backend("onnxruntime", graph, threads=chosen.threads)),
        score=main,
    )
    typed, choices = _choose(search, scores[main], progress)
    variant = judge(whole, model, typed, request, calibration, validation, choices)
    others = tuple(v for v in whole.manifest.variants if v.name != variant.name)
    amend_bundle(bundle, variants=(*others, variant), files={variant.file: _bytes(typed.model)})
    return variant


def _choose(search: _Search, wanted: float, progress: Progress) -> tuple[Typed, tuple[GroupChoice, ...]]:
    """The best mixture, and the table of what each group gained and lost. Raises BudgetError where none is faster."""
    low = search.typed(())
    lowest = search.scored(low.model)
    groups = neighbours(low.layers, search.options.groups)
    progress.stage("precision search", len(groups))
    rows: list[GroupChoice] = []
    for number, group in enumerate(groups):
        mixed = search.typed((group,))
        ratio, low_ms = search.compared(mixed.model, low.model)
        loss = search.scored(mixed.model) - lowest
        rows.append(_row(group, ratio, low_ms, loss))
        progress.step(number + 1, {search.score: lowest + loss})
    if all(row.precision == "fp32" for row in rows):  # neighbours share conversions: perhaps all together pay
        rows = [replace(row, precision="int8", reason="no group pays by itself, all together may") for row in rows]
    typed = _within_budget(search, groups, rows, wanted)
    kept = sum(row.precision == "int8" for row in rows)
    if not kept:
        raise BudgetError(
            f"all of {search.bundle.manifest.name} would have to stay fp32 to keep {search.score} within its budget",
            "allow a larger loss with --max-loss, give more calibration images, or ship fp16",
        )
    ratio, milliseconds = search.compared(search.model, typed.model)
    if ratio.low <= 1.0:
        raise BudgetError(
            f"int8 does not make {search.bundle.manifest.name} faster here: the best mixture is {ratio.ratio:.2f}x as "
            f"fast as fp32 ({ratio.low:.2f} to {ratio.high:.2f})",
            "ship fp32 or fp16 here, or search on the device that will run it",
        )
    progress.note(f"{kept} of {len(groups)} groups are int8, {ratio.ratio:.2f}x as fast as fp32")
    whole = _row(Group(name="the whole net", layers=()), ratio, milliseconds, wanted - search.scored(typed.model))
    return typed, (*rows, whole)


def _within_budget(search: _Search, groups: Sequence[Group], rows: list[GroupChoice], wanted: float) -> Typed:
    """The graph whose score is within the budget; groups go back to fp32 in `rows` until it is, or none is left."""
    budget = MOST_LOSS["int8"] if search.request.most_loss is None else search.request.most_loss
    while True:
        floats = [group for group, row in zip(groups, rows) if row.precision == "fp32"]
        if len(floats) == len(groups):
            return Typed(model=search.model, layers=(), notes={}, settings={})
        typed = search.typed(floats)
        missing = wanted - search.scored(typed.model) - budget
        if missing <= 0:
            return typed
        index = _dearest(rows)
        reason = f"the score was {missing:.4f} short of its budget, and this group lost most for its time"
        rows[index] = replace(rows[index], precision="fp32", reason=reason)


def _row(group: Group, ratio: Speedup, low_ms: float, loss: float) -> GroupChoice:
    """ratio: of the net with this group in fp32 to the one with all groups low."""
    pays = ratio.low > 1.0
    return GroupChoice(
        group=group.name,
        layers=group.layers,
        precision="int8" if pays else "fp32",
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
