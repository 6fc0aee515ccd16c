"""The verb: further precisions of a bundle's model, each measured against it before it goes into the bundle.

model (fp32) + calibration frames -> float16 or int8 graph -> distance on real frames, score on validation images
-> how closely an engine must follow the golden vectors -> a file and a record in the bundle
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgeslim.errors import BundleError, ConfigError
from edgeslim.progress import Progress
from edgeslim.runtime import Bundle, Manifest, Variant, read_bundle
from edgeslim.runtime.validation import ValidationSet, check_validation

from ..bundle import amend_bundle
from .calibration import Calibration, Sample, open_calibration
from .fp16 import Fp16Options, to_float16
from .int8 import quantize
from .judge import Typed, judge
from .request import VariantRequest


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
    if validation is not None:
        check_validation(validation, whole.manifest, str(whole.path))
    model = ir.from_proto(onnx.load_model_from_string(whole.model))
    calibration = open_calibration(model, as_batches(frames, whole.manifest), images)
    made: dict[str, Variant] = {}
    files: dict[str, bytes] = {}
    for request in requests:
        progress.stage(f"precision {request.name}")
        typed = make_typed(model, request, calibration)
        made[request.name] = judge(whole, model, typed, request, calibration, validation)
        files[made[request.name].file] = bytes(ir.to_proto(typed.model).SerializeToString())
    put_variants(bundle, whole, tuple(made.values()), files)
    return tuple(made.values())


def put_variants(path: Path, made_from: Bundle, variants: Sequence[Variant], files: Mapping[str, bytes]) -> None:
    """Put variants into a bundle, in the place of those of the same names.

    made_from: the bundle as it was when they were begun, minutes ago. What others have put into it since stays.
    Raises BundleError where its model is another one by now, ExportError where it cannot be written.
    """
    now = read_bundle(path)
    if now.manifest.model_entry != made_from.manifest.model_entry:
        raise BundleError(
            f"{path} was replaced by a bundle of another model while its precisions were made", "make them again"
        )
    names = {variant.name for variant in variants}
    others = (variant for variant in now.manifest.variants if variant.name not in names)
    amend_bundle(path, variants=(*others, *variants), files=files)


def make_typed(model: ir.Model, request: VariantRequest, calibration: Calibration) -> Typed:
    """The graph in low precision. Raises UnsupportedGraphError where nothing in it can be, DataError."""
    options = request.options
    images = {"calibration images": str(calibration.images), "calibration": digest(calibration)}
    if isinstance(options, Fp16Options):
        return _halved(Typed(model=model, layers=(), notes={}, settings=images), options, calibration)
    for name in sorted(options.keep_float - set(model.graph.initializers)):
        near = difflib.get_close_matches(name, list(model.graph.initializers), 3, 0.0)
        raise ConfigError(f"the graph has no weight {name!r} to keep", f"did you mean {' or '.join(near)}?")
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
        "weights": "as int8" if options.stores_int8 else "as floats behind Q and DQ, int8 in an engine",
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


def digest(calibration: Calibration) -> str:
    """SHA-256 of all calibration inputs, in their order."""
    found = hashlib.sha256()
    for feed in calibration.feeds:
        for name, array in sorted(feed.items()):
            found.update(f"{name} {array.dtype} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def as_batches(frames: Sequence[Sample], manifest: Manifest) -> list[Sample]:
    """Single frames (H, W, C) as batches of one; for a graph of a fixed batch, neighbours of one size together."""
    batch = manifest.inputs[0].shape[0]
    if not isinstance(batch, int):
        return [f[np.newaxis] if isinstance(f, np.ndarray) and f.ndim == 3 else f for f in frames]
    whole: list[Sample] = []
    for _, same in itertools.groupby(frames, key=lambda f: f.shape if isinstance(f, np.ndarray) else None):
        group = list(same)
        single = [f for f in group if isinstance(f, np.ndarray) and f.ndim == 3]
        whole += [np.stack(single)] if len(single) == len(group) else group
    return whole
