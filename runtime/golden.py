"""Golden vectors: inputs and the outputs that the exporter saw for them, re-checked where the bundle runs.

The file is an NPZ with one entry `<case>/inputs/<name>` or `<case>/outputs/<name>` per tensor, cases counted
from 0. A case may have any batch and frame size the graph accepts. An element agrees when
|a - b| <= atol + rtol * |b| with b the expected value; anything that is not finite disagrees. Where the spec limits it,
||a - b|| / ||b|| of a whole output is held to that as well.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeslim.errors import BundleError, CertificateError

from .backends.protocol import Array, Backend
from .manifest import GoldenSpec

_HINT = "the golden file belongs to another net or is damaged: export the bundle again"


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenCase:
    """One run: tensors by the graph's names, with their batch axis."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenReport:
    """All golden cases agreed; the errors are the largest over all of them."""

    cases: int
    max_abs: float
    max_rel: float
    atol: float
    rtol: float


def entry_name(case: int, kind: str, tensor: str) -> str:
    """The NPZ key of one tensor; `kind` is "inputs" or "outputs"."""
    return f"{case}/{kind}/{tensor}"


def parse_golden(data: bytes, where: str) -> tuple[GoldenCase, ...]:
    """Read the cases from NPZ bytes. Raises BundleError naming `where` if they are malformed or pickled."""
    tables: dict[int, dict[str, dict[str, Array]]] = {}
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            for key in arrays.files:
                case, kind, tensor = key.split("/", 2)
                tables.setdefault(int(case), {"inputs": {}, "outputs": {}})[kind][tensor] = arrays[key]
    except Exception as error:  # foreign bytes: what NumPy and zipfile raise on them is an open set
        raise BundleError(f"{where} is not a file of golden vectors: {error}", _HINT) from error
    if not tables or sorted(tables) != list(range(len(tables))):
        raise BundleError(f"{where} has the cases {sorted(tables)}; they count from 0 without a gap", _HINT)
    return tuple(
        GoldenCase(inputs=tables[case]["inputs"], outputs=tables[case]["outputs"]) for case in range(len(tables))
    )


def verify_cases(cases: Sequence[GoldenCase], spec: GoldenSpec, backend: Backend) -> GoldenReport:
    """Run every case on `backend` and compare.

    Raises CertificateError where one output is out of tolerance, BundleError where a case does not fit the
    graph, EngineError where the engine fails.
    """
    worst_abs = worst_rel = 0.0
    names = [output.name for output in backend.outputs]
    for number, case in enumerate(cases):
        if set(case.outputs) != set(names):
            raise BundleError(
                f"golden case {number} has the outputs {sorted(case.outputs)}, the graph has {sorted(names)}",
                _HINT,
            )
        for name, actual in zip(names, backend.run(dict(case.inputs))):
            max_abs, max_rel = _compare(
                actual, case.outputs[name], spec, f"golden case {number}, output {name!r}", backend
            )
            worst_abs, worst_rel = max(worst_abs, max_abs), max(worst_rel, max_rel)
    return GoldenReport(cases=len(cases), max_abs=worst_abs, max_rel=worst_rel, atol=spec.atol, rtol=spec.rtol)


def _compare(actual: Array, expected: Array, spec: GoldenSpec, where: str, backend: Backend) -> tuple[float, float]:
    """Largest absolute and relative error, in float64. Raises CertificateError out of tolerance."""
    hint = (
        f"{backend.name} {backend.version} on this device does not reproduce the net: "
        "do not use its results, try another version of the engine"
    )
    if actual.shape != expected.shape:
        raise CertificateError(f"{where} has shape {list(actual.shape)}, expected {list(expected.shape)}", hint)
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise CertificateError(f"{where} is not finite everywhere", hint)
    error, size = np.abs(a - b), np.abs(b)
    max_abs = float(error.max(initial=0.0))
    max_rel = float(np.divide(error, size, out=np.zeros_like(error), where=size > 0.0).max(initial=0.0))
    excess = error - (spec.atol + spec.rtol * size)
    if excess.max(initial=0.0) > 0.0:
        place = np.unravel_index(int(excess.argmax()), excess.shape)
        raise CertificateError(
            f"{where} differs at {[int(i) for i in place]}: {a[place]:g} where {b[place]:g} is expected "
            f"(largest error {max_abs:.3g}, allowed {spec.atol:g} + {spec.rtol:g} * |expected|)",
            hint,
        )
    whole, apart = float(np.linalg.norm(b)), float(np.linalg.norm(a - b))
    if spec.relative_rms is not None and whole > 0.0 and apart > spec.relative_rms * whole:
        raise CertificateError(
            f"{where} is {apart / whole:.3g} of its own size away from what is expected, allowed is "
            f"{spec.relative_rms:.3g}",
            hint,
        )
    return max_abs, max_rel
