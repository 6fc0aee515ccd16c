"""An engine is kept only after it has run: on the bundle's golden vectors, and on a validation set where one is given.

What cannot be run here (an engine for another GPU) is kept and marked as never run; it is checked when `edgeslim build`
meets it on the device. What runs and disagrees is thrown away, and the first layers that differ are named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import CertificateError, DeviceError
from edgeslim.runtime import Bundle, FrameRange, GoldenReport, Session
from edgeslim.runtime.backends import Backend
from edgeslim.runtime.backends.tensorrt.backend import TensorRTBackend
from edgeslim.runtime.golden import verify_cases
from edgeslim.runtime.validation import ValidationSet, main_score, score

from .golden import golden_cases

MOST_LOSS = 0.005
"""By how much a score on a validation set may lie below the recorded one, unless told otherwise."""
OpenEngine = Callable[[bytes], Backend]
"""Makes a serialised engine ready to run."""
Diagnose = Callable[[NDArray[np.uint8]], str]
"""Frames that an engine got wrong -> which layers differ, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What an engine did when it was run. unchecked: why it was not."""

    golden: GoldenReport | None = None
    validation: Mapping[str, float] = field(default_factory=dict)
    layers: str | None = None
    """TensorRT's own account of the engine's layers, as JSON."""
    unchecked: str | None = None
    notes: tuple[str, ...] = ()


def check_engine(
    engine: bytes,
    bundle: Bundle,
    precision: str,
    frames: FrameRange,
    open_engine: OpenEngine,
    *,
    validation: ValidationSet | None = None,
    most_loss: float = MOST_LOSS,
    diagnose: Diagnose | None = None,
) -> Checked:
    """Run the engine. most_loss: by how much a score may lie below the one that the bundle records for the same set.

    diagnose: asked what to say of the layers, where the engine disagrees.

    Raises CertificateError for an engine that disagrees, EngineError for one that does not run.
    """
    try:
        cases, notes = golden_cases(bundle, frames)
        backend = open_engine(engine)
    except DeviceError as error:
        return Checked(unchecked=error.message)
    spec = bundle.golden_spec(precision)
    with backend, Session(bundle, backend, precision=precision, frames=frames) as session:
        try:
            golden = verify_cases(cases, spec, backend)
        except CertificateError as error:
            worst = "" if diagnose is None else diagnose(cases[0].inputs[bundle.manifest.inputs[0].name])
            raise CertificateError(
                f"the engine was built and is wrong, so it was not kept: {error.message}{worst}",
                "try another --level, another TensorRT, or --precision fp32; please report the net and the GPU",
            ) from error
        layers = backend.layers() if isinstance(backend, TensorRTBackend) else None
        if validation is None:
            return Checked(golden=golden, layers=layers, notes=notes)
        scores, remarks = _validate(session, validation, frames, most_loss, diagnose)
    return Checked(golden=golden, validation=scores, layers=layers, notes=notes + remarks)


def _validate(
    session: Session, data: ValidationSet, frames: FrameRange, most_loss: float, diagnose: Diagnose | None
) -> tuple[Mapping[str, float], tuple[str, ...]]:
    """Scores of the engine; CertificateError where they are too far below what the bundle records of this very set."""
    name, least = session.manifest.outputs[0].name, frames.minimum[0]

    def run(images: NDArray[np.uint8]) -> NDArray[np.generic]:
        whole = np.resize(images, (max(least, len(images)), *images.shape[1:]))  # the last ones may be too few
        return np.asarray(session.run_batch(whole)[name])[: len(images)]

    scores = score(run, data, batch=frames.maximum[0])
    recorded = _recorded(session, data)
    main = main_score(scores)
    if main is None or main not in recorded:
        return scores, ("the bundle records no score on this validation set: the engine's own was not judged",)
    loss = recorded[main] - scores[main]
    if not loss <= most_loss:
        size = (frames.optimum[0], *data.frames.shape[1:])
        worst = "" if diagnose is None else diagnose(np.resize(data.frames, size))
        raise CertificateError(
            f"the engine was built and is worse than it should be, so it was not kept: {main} {scores[main]:.4f} on "
            f"{len(data)} validation images, the bundle records {recorded[main]:.4f} "
            f"(allowed loss {most_loss:g}){worst}",
            "try another --level or another TensorRT, or allow more with --max-loss",
        )
    return scores, ()


def _recorded(session: Session, data: ValidationSet) -> Mapping[str, float]:
    """The scores that the bundle's maker saw on the same set, in the same precision."""
    for variant in session.manifest.variants:
        if variant.settings.get("validation") == data.sha256 and session.precision in (variant.name, "fp32"):
            return variant.metrics if session.precision == variant.name else variant.model_metrics
    return {}
