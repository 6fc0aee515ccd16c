"""The verb: further precisions of a bundle's model, each measured against it before it goes into the bundle.

    model (fp32) + calibration frames -> float16 or int8 graph -> distance on real frames, score on validation images
    -> how closely an engine must follow the golden vectors -> a file and a record in the bundle

A variant is no proof of equality, it is a measured loss: what lies beyond the limits is refused, with the layers that
lose most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.errors import CertificateError, ConfigError
from edgeslim.progress import Progress
from edgeslim.runtime import Bundle, Deviation, GoldenSpec, GroupChoice, Precision, Variant, open_backend, read_bundle
from edgeslim.runtime.golden import verify_cases
from edgeslim.runtime.validation import ValidationSet, main_score, score

from ..bundle import amend_bundle
from ..cost import count_weight_bytes
from .calibration import Calibration, Sample, open_calibration
from .deviation import Difference, measure_deviation
from .fp16 import Fp16Options, to_float16
from .int8 import Int8Options, quantize
from .layers import compare_layers
from .simulate import Outputs, simulate

LARGEST_RMS = {"fp16": 0.02, "int8": 0.5}
"""Relative rms on real frames from which a variant is refused whatever it scores: noise as loud as that is a fault."""
MOST_LOSS = {"fp16": 0.001, "int8": 0.005}
"""By how much the score on the validation images may fall."""
_ENGINE_SLACK = 2.0
"""An engine may be so many times as far from a golden output as the variant is in ONNX Runtime."""
_DEVIATION_FRAMES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRequest:
    """What to make.

    name: under which it is asked for.  half: what cannot be int8 becomes float16, for GPUs.  most_loss: of the
    validation score, `MOST_LOSS` where None.
    """

    name: str
    options: Fp16Options | Int8Options
    half: bool = False
    most_loss: float | None = None

    @property
    def precision(self) -> Precision:
        """The lowest one in the graph that will be made."""
        return "fp16" if isinstance(self.options, Fp16Options) else "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """A graph in low precision. notes: what stayed in float32 and why. settings: what it was made with."""

    model: ir.Model
    layers: tuple[str, ...]
    """The weights that are int8; none in float16."""
    notes: Mapping[str, str]
    settings: Mapping[str, str]


def add_variants(
    bundle: Path,
    requests: Sequence[VariantRequest],
    frames: Sequence[Sample],
    *,
    images: int | None = None,
    validation: ValidationSet | None = None,
    progress: Progress,
) -> tuple[Variant, ...]:
    """Make the variants and put them into the bundle, in the place of those of the same names.

    frames: calibration frames, uint8 (H, W, C) each, or batches of them; real ones, not those of the test set.  images:
    how many are asked for.  validation: images with answers that the scores are counted on.
    Raises ConfigError for names, DataError for frames that do not fit, CertificateError for a variant that loses too
    much, BundleError, UnsupportedGraphError.
    """
    whole = read_bundle(bundle)
    names = [request.name for request in requests]
    if len(set(names)) != len(names):
        raise ConfigError(f"the precisions {names} have a name twice", "give every one a name of its own")
    model = ir.from_proto(onnx.load_model_from_string(whole.model))
    calibration = open_calibration(model, as_batches(frames), images)
    made: dict[str, Variant] = {v.name: v for v in whole.manifest.variants}
    files: dict[str, bytes] = {}
    for request in requests:
        progress.stage(f"precision {request.name}")
        typed = make_typed(model, request, calibration)
        variant = judge(whole, model, typed, request, calibration, validation)
        made[request.name] = variant
        files[variant.file] = bytes(ir.to_proto(typed.model).SerializeToString())
    amend_bundle(bundle, variants=tuple(made.values()), files=files)
    return tuple(made[name] for name in names)


def make_typed(model: ir.Model, request: VariantRequest, calibration: Calibration) -> Typed:
    """The graph in low precision. Raises UnsupportedGraphError where nothing in it can be, DataError."""
    options, images = request.options, {"calibration images": str(calibration.images)}
    if isinstance(options, Fp16Options):
        return _halved(Typed(model=model, layers=(), notes={}, settings=images), options, calibration)
    if request.half and options.int8_weights is None:  # as floats they would be rounded to float16 first
        options = replace(options, int8_weights=True)
    quantized = quantize(model, calibration, options)
    correction = quantized.correction
    percent = f" {options.percentile:g}" if options.method == "percentile" else ""
    settings = {
        "placement": options.placement,
        "calibrator": options.method + percent,
        "equalized": "no" if quantized.equalization is None else "yes",
        "biases": "as they were" if correction is None or not correction.kept else "corrected",
        "rest": "float16" if request.half else "float32",
    }
    typed = Typed(
        model=quantized.model,
        layers=quantized.layers,
        notes={declined.where: declined.reason for declined in quantized.declined},
        settings={**settings, **images},
    )
    return _halved(typed, Fp16Options(), calibration) if request.half else typed


def _halved(typed: Typed, options: Fp16Options, calibration: Calibration) -> Typed:
    """What is float32 becomes float16 where that does."""
    halved = to_float16(typed.model, calibration, options)
    islands = {f"{i.operator} {i.layer or i.value}": i.reason for i in halved.islands}
    return replace(typed, model=halved.model, notes={**typed.notes, **islands})


def judge(
    bundle: Bundle,
    model: ir.Model,
    typed: Typed,
    request: VariantRequest,
    calibration: Calibration,
    validation: ValidationSet | None,
    search: tuple[GroupChoice, ...] = (),
) -> Variant:
    """Measure a typed graph against the model and write its record. Raises CertificateError where it loses too much."""
    precision = request.precision
    run, plain = simulate(typed.model), simulate(model)
    some = calibration.part(0, _DEVIATION_FRAMES)
    outputs = measure_deviation(model, typed.model, some, run)
    worst = max(outputs, key=lambda output: output.relative_rms)
    if not worst.relative_rms <= LARGEST_RMS[precision]:
        raise CertificateError(
            f"{bundle.path}: in {request.name} the output {worst.output} is {worst.relative_rms:.3g} of its own size "
            f"away from the model's on real frames, allowed is {LARGEST_RMS[precision]:g}\n"
            + compare_layers(model, typed.model, some.part(0, 2)).describe(),
            "keep those layers in float, or choose another calibrator; the bundle is as it was",
        )
    own, theirs = (score_outputs(each, bundle, validation) for each in (run, plain))
    _check_loss(bundle, request, own, theirs, validation)
    deviation = Deviation(
        frames=some.images,
        max_abs=max(output.max_abs for output in outputs),
        relative_rms=worst.relative_rms,
    )
    limits = _limits(bundle, typed.model, run, deviation)
    settings = {**typed.settings, "onnxruntime": version("onnxruntime")}
    return Variant(
        name=request.name,
        precision=precision,
        file=f"model.{request.name}.onnx",
        placement=request.options.placement if isinstance(request.options, Int8Options) else None,  # type: ignore[arg-type]
        onnxruntime=_runs_as_usual(bundle, typed.model, limits),
        output_dtype=_output_dtype(typed.model),
        weight_bytes=count_weight_bytes(typed.model),
        atol=limits.atol,
        rtol=limits.rtol,
        relative_rms=limits.relative_rms or 0.0,
        deviation=deviation,
        metrics=own,
        model_metrics=theirs,
        validation_images=None if validation is None else len(validation),
        settings=settings if validation is None else {**settings, "validation": validation.sha256},
        islands=typed.notes,
        search=search,
    )


def as_batches(frames: Sequence[Sample]) -> list[Sample]:
    """Single frames (H, W, C) as batches of one."""
    return [f[np.newaxis] if isinstance(f, np.ndarray) and f.ndim == 3 else f for f in frames]


def score_outputs(run: Outputs, bundle: Bundle, validation: ValidationSet | None) -> Mapping[str, float]:
    """The scores of a net that runs, on the validation images; none where there are none."""
    if validation is None:
        return {}
    entry = bundle.manifest.inputs[0]
    fixed = entry.shape[0] if isinstance(entry.shape[0], int) else None

    def answer(images: NDArray[np.uint8]) -> NDArray[np.generic]:
        whole = images if fixed is None else np.resize(images, (fixed, *images.shape[1:]))
        return run({entry.name: whole})[0][: len(images)]

    pixels = validation.frames.shape[1] * validation.frames.shape[2]
    return score(answer, validation, batch=fixed or max(1, min(64, 2**18 // pixels)))


def _check_loss(
    bundle: Bundle,
    request: VariantRequest,
    own: Mapping[str, float],
    theirs: Mapping[str, float],
    validation: ValidationSet | None,
) -> None:
    main = main_score(theirs)
    if main is None or validation is None:
        return
    allowed = MOST_LOSS[request.precision] if request.most_loss is None else request.most_loss
    seen = own.get(main, -math.inf)
    if theirs[main] - seen > allowed:
        raise CertificateError(
            f"{bundle.path}: in {request.name} {main} falls from {theirs[main]:.4f} to {seen:.4f} on {len(validation)} "
            f"validation images, allowed is a loss of {allowed:g}",
            "try another calibrator or more calibration images, let the groups be chosen by measurement (--search), or "
            "allow more (--max-loss); the bundle is as it was",
        )


def _limits(bundle: Bundle, typed: ir.Model, run: Outputs, deviation: Deviation) -> GoldenSpec:
    """How closely an engine must follow the model's golden outputs when it runs this graph.

    As far as the variant is from the model in ONNX Runtime, on real frames and on the golden ones, as its graph says
    and by the CPU's own integer kernels, times a slack for the kernels of others; never closer than the model is held.
    """
    golden = bundle.golden_spec()
    kernels = simulate(typed, integer_kernels=True)
    furthest, loudest = deviation.max_abs, deviation.relative_rms
    for case in bundle.golden_cases():
        for answer in (run, kernels):
            for spec, array in zip(bundle.manifest.outputs, answer(dict(case.inputs))):
                difference = Difference()
                difference.add(array, case.outputs[spec.name])
                furthest, loudest = max(furthest, difference.max_abs), max(loudest, difference.relative_rms)
    return replace(
        golden,
        atol=golden.atol + _ENGINE_SLACK * furthest,
        relative_rms=golden.rtol + _ENGINE_SLACK * loudest,
    )


def _runs_as_usual(bundle: Bundle, typed: ir.Model, limits: GoldenSpec) -> bool:
    """Whether a session with all of ONNX Runtime's fusions, as a camera program opens it, stays within the limits.

    Those of 1.31 for the CPU do not where int8 and float16 meet: the outputs are several times as far off.
    """
    with open_backend("onnxruntime", bytes(ir.to_proto(typed).SerializeToString())) as backend:
        try:
            verify_cases(bundle.golden_cases(), limits, backend)
        except CertificateError:
            return False
    return True


def _output_dtype(model: ir.Model) -> Literal["float32", "float16"]:
    return "float16" if any(v.dtype == ir.DataType.FLOAT16 for v in model.graph.outputs) else "float32"
