"""The proof that nothing changed: every form of the net against the masked net it came from.

    |a - b| <= atol + rtol * |b|    for every element, with b the reference and atol = relative_atol * max|b|

An absolute tolerance relative to the largest logit is what floating-point summation in another order can cause; a
channel that is off by one index exceeds it by orders of magnitude. A stage that is not finite has failed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import CertificateError
from edgeslim.runtime.certificate import Certificate, Stage

Runner = Callable[[NDArray[np.generic]], list[NDArray[np.generic]]]
"""A batch in (images (N, C, H, W) float32, or frames (N, H, W, C) uint8), outputs in the net's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """The torch forms of a net. masked: what every other form must equal. others: by name. missing: name -> why."""

    masked: Runner
    others: Mapping[str, Runner] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Allowed difference; see the module docstring."""

    relative_atol: float = 2e-5
    rtol: float = 1e-4


@dataclass(frozen=True, slots=True)
class Probe:
    """Input batches of one kind ("random", "real")."""

    kind: str
    batches: Sequence[NDArray[np.generic]]

    @property
    def description(self) -> str:
        """Words for the certificate, such as "random: 1, 2 x 3x64x96; 1, 2 x 3x48x64"."""
        sizes: dict[str, list[str]] = {}
        for batch in self.batches:
            sizes.setdefault("x".join(map(str, batch.shape[1:])), []).append(str(len(batch) if batch.ndim else 1))
        return f"{self.kind}: " + "; ".join(
            ", ".join(counts) + (f" x {size}" if size else "") for size, counts in sizes.items()
        )


def random_probe(shapes: Sequence[tuple[int, ...]], seed: int = 0) -> Probe:
    """Standard normal batches of these shapes, the range of normalised images."""
    generator = np.random.default_rng(seed)
    return Probe("random", [generator.standard_normal(s, np.float32) for s in shapes])


def certify(
    reference: tuple[str, Runner],
    candidates: Mapping[str, Runner],
    probes: Sequence[Probe],
    tolerance: Tolerance | None = None,
) -> Certificate:
    """Run every candidate and the reference on every probe and record how far apart they are.

    Raises CertificateError if the reference itself is not finite: nothing can be proven about such a net.
    """
    name, run = reference
    expected = [(probe, [run(batch) for batch in probe.batches]) for probe in probes]
    for probe, answers in expected:
        if not all(np.isfinite(array).all() for answer in answers for array in answer):
            raise CertificateError(
                f"{name} itself gives values that are not finite on {probe.description}",
                "look for weights that are not finite, and for a division by zero in the forward",
            )
    return Certificate(
        stages=tuple(
            _stage(candidate, name, probe, [runner(b) for b in probe.batches], wanted, tolerance or Tolerance())
            for candidate, runner in candidates.items()
            for probe, wanted in expected
        )
    )


def require(certificate: Certificate) -> None:
    """Raise CertificateError naming the first stage that failed."""
    for stage in certificate.stages:
        if not stage.passed:
            error = "not finite, or of another shape" if stage.max_abs is None else f"{stage.max_abs:.3g}"
            raise CertificateError(
                f"{stage.name} differs from {stage.reference} on {stage.inputs}: largest absolute error {error}, "
                f"allowed {stage.atol:.3g} + {stage.rtol:.3g} * |reference|",
                "nothing was written. Where the values inside the net are very large the tolerance can be too tight "
                "(see Tolerance); in all other cases please report the net",
            )


def _stage(
    name: str,
    reference: str,
    probe: Probe,
    seen: Sequence[Sequence[NDArray[np.generic]]],
    wanted: Sequence[Sequence[NDArray[np.generic]]],
    tolerance: Tolerance,
) -> Stage:
    max_abs, max_rel, passed, widest = 0.0, 0.0, True, 0.0
    for a, b in ((a, b) for s, w in zip(seen, wanted) for a, b in _pairs(s, w)):
        if a is None or b is None or a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
            passed, max_abs = False, float("inf")
            continue
        if not a.size:
            continue
        wanted_values = b.astype(np.float64)
        difference, size = np.abs(a.astype(np.float64) - wanted_values), np.abs(wanted_values)
        atol = tolerance.relative_atol * float(size.max())
        passed = passed and bool(np.all(difference <= atol + tolerance.rtol * size))
        widest = max(widest, atol)
        max_abs = max(max_abs, float(difference.max()))
        nonzero = size > 0
        if nonzero.any():
            with np.errstate(over="ignore"):  # beside a subnormal reference
                relative = difference[nonzero] / size[nonzero]
            max_rel = max(max_rel, min(float(relative.max()), sys.float_info.max))
    finite = np.isfinite(max_abs)
    return Stage(
        name=name,
        reference=reference,
        inputs=probe.description,
        max_abs=max_abs if finite else None,
        max_rel=max_rel if finite else None,
        atol=widest,
        rtol=tolerance.rtol,
        passed=passed,
    )


def _pairs(
    a: Sequence[NDArray[np.generic]], b: Sequence[NDArray[np.generic]]
) -> list[tuple[NDArray[np.generic] | None, NDArray[np.generic] | None]]:
    """Outputs side by side; a missing one is None."""
    size = max(len(a), len(b))
    return [(a[i] if i < len(a) else None, b[i] if i < len(b) else None) for i in range(size)]
