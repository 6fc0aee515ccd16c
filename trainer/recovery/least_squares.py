"""Without training: let what stays speak for what has left.

A layer that lost inputs says something else than before. Ridge regression finds the change of its remaining weights
after which it says, on calibration inputs, most nearly what it said with all channels:

    min_D  | R - X D |^2 + lambda |D|^2
    R = (dense q - present q) / scale          X = what the remaining weights read now

where q is the last value at which the layer is heard unmixed (readers). Layers are corrected first to last, each on
what reaches it through the corrected ones before it; those that lost nothing but hear something else than before are
corrected, too. So errors do not pile up. (He et al., ICCV 2017, reconstruct by least squares; ridge, residual form and
the place where a layer is heard are ours.)

Rows have three parts (held_out). D is fitted on the first; by the second lambda is chosen, and a layer that does not
gain keeps its weights; then D is fitted to both. The error is reported on the third, which plays no other part.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.foreign.feeds import Arrays

from .held_out import FEWEST_INPUTS, Part, parts
from .normal import Matrix, Normal
from .readers import Heard, Reader, find_heard, find_readers
from .walk import Walk

LARGEST_FEATURES = 4608
"""512 channels of a 3x3 kernel: its normal equations have 170 MB; wider layers keep their weights."""
ROWS_A_FEATURE = 64
"""Neighbouring positions of a feature map say nearly the same: rows are many, and independent ones few."""
MOST_ROWS = 65_536
RIDGES = (1e-4, 1e-2, 1.0)
"""lambda as a share of the mean diagonal of X'X."""

Report = Callable[[int, int], None]
"""Called with (layers done, layers in all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One layer: |R| / |q| before and after, on rows that nothing was fitted to or chosen on.

    skipped: why its weights stayed, "" if they changed.
    """

    layer: str
    error_before: float | None = None
    error_after: float | None = None
    skipped: str = ""


def correct(
    dense: ir.Model,
    masked: ir.Model,
    channels: ChannelMap,
    cut: Collection[int],
    inputs: Sequence[Arrays],
    report: Report = lambda done, total: None,
) -> tuple[dict[str, NDArray[np.generic]], tuple[Correction, ...]]:
    """The initializers that change, and what that bought layer by layer.

    dense: the graph before the cut; masked: the same graph with silenced producers; inputs: full sets of graph inputs.
    """
    former, present = Walk(dense, inputs), Walk(masked, inputs)
    living = channels.living(cut)
    other = affected_values(channels, living)
    layers = [reader for reader in find_readers(channels) if reader.source in other]
    changed: dict[str, NDArray[np.generic]] = {}
    corrections = []
    for number, reader in enumerate(layers):
        report(number, len(layers))
        for walk in (former, present):
            walk.advance(reader.node.outputs[0].name or "")
        correction, arrays = _correct_layer(former, present, reader, channels.parameters, living)
        present.weights.update(arrays)
        changed.update(arrays)
        corrections.append(correction)
    report(len(layers), len(layers))
    return changed, tuple(corrections)


def affected_values(channels: ChannelMap, living: NDArray[np.bool_]) -> set[str]:
    """The names of values that are not what they are in the dense net."""
    other = set[str]()
    for node in channels.model.graph:
        outputs = {v.name or "" for v in node.outputs}
        cut = any(
            ids is not None and not living[ids].all() for name in outputs for ids in channels.value_ids.get(name, ())
        )
        if cut or any(v is not None and v.name in other for v in node.inputs):
            other |= outputs
    return other


def _correct_layer(
    former: Walk, present: Walk, reader: Reader, parameters: Collection[str], living: NDArray[np.bool_]
) -> tuple[Correction, dict[str, NDArray[np.generic]]]:
    kept_in = living[reader.ids]
    features = int(kept_in.sum()) * reader.taps
    skipped = reader.unfit or (
        f"{features} weights an output, at most {LARGEST_FEATURES}" if features > LARGEST_FEATURES else ""
    )
    if skipped:
        return Correction(layer=reader.layer, skipped=skipped), {}
    heard = find_heard(reader, parameters, present.weights)
    usable = np.abs(heard.scale) > 1e-6 * max(float(np.abs(heard.scale).max()), 1e-30)
    kept_out = usable if reader.out_ids is None else usable & living[reader.out_ids]
    rows, energy = _observe(former, present, reader, heard, kept_in, kept_out)
    if not all(part.count for part in rows):
        return Correction(layer=reader.layer, skipped="too few calibration inputs: five rows at least"), {}
    loud = np.square(heard.scale[kept_out])
    before = _relative(rows[Part.REPORT].square, loud, energy)
    change = _solve(rows[Part.FIT], rows[Part.CHOOSE], loud)
    if change is None:
        return Correction(
            layer=reader.layer, error_before=before, error_after=before, skipped="no gain on held-out rows"
        ), {}
    after = _relative(rows[Part.REPORT].left(change), loud, energy)
    arrays = {reader.layer: _changed_weight(present.weights[reader.layer], reader, change, kept_in, kept_out)}
    if heard.shift is not None:
        shift = present.weights[heard.shift].astype(np.float64)
        shift[kept_out] += change[-1] * heard.scale[kept_out] / heard.shift_scale[kept_out]
        arrays[heard.shift] = shift.astype(present.weights[heard.shift].dtype)
    return Correction(layer=reader.layer, error_before=before, error_after=after), arrays


def _observe(
    former: Walk, present: Walk, reader: Reader, heard: Heard, kept_in: NDArray[np.bool_], kept_out: NDArray[np.bool_]
) -> tuple[list[Normal], float]:
    """The normal equations of each Part, and |dense q|^2 of the rows to report on."""
    read, now = present.peek([reader.source, heard.value])
    (wanted,) = former.peek([heard.value])
    shifted = heard.shift is not None
    features = int(kept_in.sum()) * reader.taps + shifted
    normals = [Normal(features, int(kept_out.sum())) for _ in Part]
    whole = parts(len(read)) if len(read) >= FEWEST_INPUTS else None
    count = -(-min(ROWS_A_FEATURE * features + 1280, MOST_ROWS) // len(read))
    axis, scale, energy = reader.axis, heard.scale[kept_out].astype(np.float32), 0.0
    for seed, (x, y, target) in enumerate(zip(read, now, wanted)):
        both = np.concatenate([np.subtract(target, y), target], axis=axis).astype(np.float32)
        seen, said = reader.look(np.compress(kept_in, x, axis), both, count, np.random.default_rng(seed))
        lacking, full = (half[:, kept_out] for half in np.split(said, 2, axis=1))
        if shifted:
            seen = np.concatenate([seen, np.ones((len(seen), 1), np.float32)], axis=1)
        mine = parts(len(seen)) if whole is None else np.full(len(seen), whole[seed])
        for part in Part:
            normals[part].add(seen[mine == part], lacking[mine == part] / scale)
        energy += float(np.square(full[mine == Part.REPORT], dtype=np.float64).sum())
    return normals, energy


def _solve(fit: Normal, choose: Normal, loud: NDArray[np.float64]) -> Matrix | None:
    """The best change (features, outputs), fitted to both; None where there is no gain. loud: (outputs,) weights."""
    best, least = None, float(choose.square @ loud)
    if not np.isfinite(least):
        return None
    for ridge in RIDGES:
        error = float(choose.left(fit.solve(ridge)) @ loud)
        if error < least:
            best, least = ridge, error
    return None if best is None else (fit + choose).solve(best)


def _relative(square: NDArray[np.float64], loud: NDArray[np.float64], energy: float) -> float:
    return float(np.sqrt(square @ loud / max(energy, 1e-30)))


def _changed_weight(
    array: NDArray[np.generic],
    reader: Reader,
    change: Matrix,
    kept_in: NDArray[np.bool_],
    kept_out: NDArray[np.bool_],
) -> NDArray[np.generic]:
    """Add the change to the weights between what stays; the others are not touched."""
    matrix = reader.matrix(array)
    alive = np.repeat(kept_in, reader.taps)
    matrix[np.ix_(alive, kept_out)] += change[: int(alive.sum())]
    return reader.weight(matrix, array)
