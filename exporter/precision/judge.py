"""A variant judged: how far it is from the model, what it scores, how closely an engine must follow it.

A variant is no proof of equality, it is a measured loss: what lies beyond the limits is refused, with the layers that
lose most.

What is measured is what its device computes. A graph for TensorRT is taken at its word (`simulate`), rounding where it
says so. One whose Q/DQ nodes stand for ONNX Runtime's fusions will run on the CPU's integer kernels, which round in
other places, so it is measured by those. They differ between CPUs (without VNNI, sums of two products may saturate), so
its record says what measured it, and the golden vectors are checked again on every device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from edgeslim.errors import CertificateError, EdgeslimError
from edgeslim.runtime import Bundle, Deviation, GoldenSpec, GroupChoice, Precision, Variant, open_backend
from edgeslim.runtime.golden import verify_cases
from edgeslim.runtime.validation import ValidationSet, main_score, score

from ..cost import count_weight_bytes
from .calibration import Calibration
from .deviation import Difference, measure_deviation
from .fp16 import Fp16Options
from .int8 import Int8Options
from .layers import compare_layers
from .request import VariantRequest
from .simulate import Outputs, simulate

LARGEST_RMS: Mapping[Precision, float] = {"fp16": 0.02, "int8": 0.5}
"""Relative rms on real frames from which a variant is refused whatever it scores: noise as loud as that is a fault."""
_ENGINE_SLACK = 2.0
"""An engine may be so many times as far from a golden output as the variant is in ONNX Runtime."""
_DEVIATION_FRAMES = 16
ROUNDING = 1e-9
"""0.9 - 0.895 is 0.005 to people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """A graph in low precision. notes: what stayed in float32 and why. settings: what it was made with."""

    model: ir.Model
    layers: tuple[str, ...]
    """The weights that are int8; none in float16."""
    notes: Mapping[str, str]
    settings: Mapping[str, str]


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
    run, plain = request.open(typed.model), simulate(model)
    some = calibration.part(0, _DEVIATION_FRAMES)
    outputs = measure_deviation(model, typed.model, some, run)
    worst = max(outputs, key=lambda output: output.relative_rms)
    if not all(output.relative_rms <= LARGEST_RMS[precision] for output in outputs):
        raise CertificateError(
            f"{bundle.path}: in {request.name} the output {worst.output} is {worst.relative_rms:.3g} of its own size "
            f"away from the model's on real frames, allowed is {LARGEST_RMS[precision]:g}\n"
            + _worst_layers(model, typed.model, some),
            "keep those layers in float, or choose another calibrator; the bundle is as it was",
        )
    own, theirs = (score_outputs(each, bundle, validation) for each in (run, plain))
    loss = _loss(own, theirs)
    if loss is not None and loss > request.allowed_loss + ROUNDING:
        main = main_score(theirs)
        raise CertificateError(
            f"{bundle.path}: in {request.name} {main} falls by {loss:.4f} from {theirs[main or '']:.4f} on "
            f"{validation and len(validation)} validation images, allowed is a loss of {request.allowed_loss:g}\n"
            + _worst_layers(model, typed.model, some),
            "try another calibrator or more calibration images, let the groups be chosen by measurement (search), keep "
            "layers in float, or allow a larger loss; the bundle is as it was",
        )
    deviation = Deviation(
        frames=some.images,
        max_abs=max(output.max_abs for output in outputs),
        relative_rms=worst.relative_rms,
    )
    limits = _limits(bundle, typed.model, run, deviation, request)
    settings = {
        **typed.settings,
        "measured by": "integer kernels" if request.by_integer_kernels else "its graph",
        "onnxruntime": onnxruntime.__version__,
    }
    return Variant(
        name=request.name,
        precision=precision,
        file=f"model.{request.name}.onnx",
        placement=_placement(request.options),
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


def _worst_layers(model: ir.Model, typed: ir.Model, frames: Calibration) -> str:
    """Where the loss begins and where it is largest, by the names of layers."""
    try:
        return compare_layers(model, typed, frames.part(0, 2)).describe()
    except EdgeslimError as error:  # a refusal stands, whether or not the layers can be told
        return f"its layers could not be compared: {error.message}"


def _loss(own: Mapping[str, float], theirs: Mapping[str, float]) -> float | None:
    """By how much the main score is lower; all of it where there is nothing left to count, None without a score."""
    main = main_score(theirs)
    return None if main is None else theirs[main] - own.get(main, 0.0)


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


def _limits(bundle: Bundle, typed: ir.Model, run: Outputs, deviation: Deviation, request: VariantRequest) -> GoldenSpec:
    """How closely an engine must follow the model's golden outputs when it runs this graph.

    As far as the variant is from the model in ONNX Runtime, on real frames and on the golden ones, as its graph says
    and by the CPU's own integer kernels, times a slack for the kernels of others; never closer than the model is held.
    Raises CertificateError where the answer to a golden frame is no number.
    """
    golden = bundle.golden_spec()
    other = simulate(typed, integer_kernels=not request.by_integer_kernels)
    names = [value.name or "" for value in typed.graph.outputs]
    furthest, loudest = deviation.max_abs, deviation.relative_rms
    for number, case in enumerate(bundle.golden_cases()):
        for answer in (run, other):
            for name, array in zip(names, answer(dict(case.inputs))):
                difference = Difference()
                difference.add(array, case.outputs[name])
                if not math.isfinite(difference.max_abs):
                    raise CertificateError(
                        f"{bundle.path}: in {request.name} the output {name} is not finite on golden case {number}",
                        "give calibration frames that are more like those, or keep layers in float; the bundle is as "
                        "it was",
                    )
                furthest = max(furthest, difference.max_abs)
                if math.isfinite(difference.relative_rms):  # else all of it should be 0: then there is atol alone
                    loudest = max(loudest, difference.relative_rms)
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


def _placement(options: Fp16Options | Int8Options) -> Literal["tensorrt", "onnxruntime"] | None:
    if isinstance(options, Fp16Options):
        return None
    return "onnxruntime" if options.placement == "onnxruntime" else "tensorrt"


def _output_dtype(model: ir.Model) -> Literal["float32", "float16"]:
    return "float16" if any(v.dtype == ir.DataType.FLOAT16 for v in model.graph.outputs) else "float32"
