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
from edgeslim.exporter.walk import Walk

from .held_out import FEWEST_INPUTS, Part, parts
from .normal import Matrix, Normal
from .readers import Heard, Reader, find_heard, find_readers

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Staying:
    """What is left of a layer: of its groups `alive` (G,), in each of them `reads` (I / G,) and `says` (O / G,)."""

    alive: NDArray[np.bool_]
    reads: NDArray[np.bool_]
    says: NDArray[np.bool_]

    @classmethod
    def of(cls, reader: Reader, living: NDArray[np.bool_]) -> _Staying | None:
        """None where the groups lose different channels, or where nothing is left."""
        reads = living[reader.ids].reshape(reader.groups, -1)
        says = np.ones(reader.width, np.bool_) if reader.out_ids is None else living[reader.out_ids]
        says = says.reshape(reader.groups, -1)
        alive = np.logical_and(reads.any(axis=1), says.any(axis=1))
        if not alive.any():
            return None
        first = int(alive.argmax())
        same = (reads[alive] == reads[first]).all() and (says[alive] == says[first]).all()
        return cls(alive=alive, reads=reads[first], says=says[first]) if same else None

    @property
    def inputs(self) -> NDArray[np.bool_]:
        """(I,)"""
        return np.outer(self.alive, self.reads).ravel()

    @property
    def outputs(self) -> NDArray[np.bool_]:
        """(O,)"""
        return np.outer(self.alive, self.says).ravel()

    @property
    def groups(self) -> int:
        """How many groups are left."""
        return int(self.alive.sum())

    def by_group(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows, groups left * n) -> (groups left, rows, n)."""
        return np.swapaxes(rows.reshape(len(rows), self.groups, -1), 0, 1)


def _correct_layer(
    former: Walk, present: Walk, reader: Reader, parameters: Collection[str], living: NDArray[np.bool_]
) -> tuple[Correction, dict[str, NDArray[np.generic]]]:
    staying = _Staying.of(reader, living)
    features = int(staying.reads.sum()) * reader.taps if staying is not None else 0
    skipped = reader.unfit or (
        "its groups lose different channels, or all" if staying is None
        else f"{features} weights an output, at most {LARGEST_FEATURES}" if features > LARGEST_FEATURES
        else ""
    )  # fmt: skip
    if staying is None or skipped:
        return Correction(layer=reader.layer, skipped=skipped), {}
    heard = find_heard(reader, parameters, present.weights)
    rows, energy = _observe(former, present, reader, heard, staying)
    if not all(part.count for part in rows):
        return Correction(layer=reader.layer, skipped="too few calibration inputs: five rows at least"), {}
    loud = np.square(_audible(heard)[staying.outputs]).reshape(staying.groups, -1)
    before = _relative(rows[Part.REPORT].square, loud, energy)
    change = _solve(rows[Part.FIT], rows[Part.CHOOSE], loud)
    if change is None:
        return Correction(
            layer=reader.layer, error_before=before, error_after=before, skipped="no gain on held-out rows"
        ), {}
    after = _relative(rows[Part.REPORT].left(change), loud, energy)
    matrix = reader.matrix(present.weights[reader.layer])
    matrix[np.ix_(staying.alive, np.repeat(staying.reads, reader.taps), staying.says)] += change[:, :features]
    arrays = {reader.layer: reader.weight(matrix, present.weights[reader.layer])}
    if heard.shift is not None:
        shift = present.weights[heard.shift].astype(np.float64)
        own = np.flatnonzero(staying.outputs)
        rises = change[:, -1].ravel() * heard.scale[own]
        audible = rises != 0  # behind a norm whose scale is zero nothing is heard, and nothing has to change
        shift[own[audible]] += rises[audible] / heard.shift_scale[own[audible]]
        arrays[heard.shift] = shift.astype(present.weights[heard.shift].dtype)
    return Correction(layer=reader.layer, error_before=before, error_after=after), arrays


def _audible(heard: Heard) -> NDArray[np.float64]:
    """(O,) the scale, 0 where next to nothing is heard of an output: nothing can be learnt there of its weights."""
    size = np.abs(heard.scale)
    return np.where(size > 1e-6 * max(float(size.max()), 1e-30), heard.scale, 0.0)


def _observe(
    former: Walk, present: Walk, reader: Reader, heard: Heard, staying: _Staying
) -> tuple[list[Normal], float]:
    """The normal equations of each Part, and |dense q|^2 of the rows to report on."""
    read, now = present.peek([reader.source, heard.value])
    (wanted,) = former.peek([heard.value])
    shifted = heard.shift is not None
    features = int(staying.reads.sum()) * reader.taps + shifted
    normals = [Normal(staying.groups, features, int(staying.says.sum())) for _ in Part]
    whole = parts(len(read)) if len(read) >= FEWEST_INPUTS else None
    count = -(-min(ROWS_A_FEATURE * features + 1280, MOST_ROWS) // len(read))
    axis, energy, scale = reader.axis, 0.0, _audible(heard)[staying.outputs]
    gain = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0).astype(np.float32)
    for seed, (x, y, target) in enumerate(zip(read, now, wanted)):
        y, target = (np.compress(staying.outputs, a, axis) for a in (y, target))
        both = np.concatenate([np.subtract(target, y), target], axis=axis).astype(np.float32)
        seen, said = reader.look(np.compress(staying.inputs, x, axis), both, count, np.random.default_rng(seed))
        lacking, full = np.split(said, 2, axis=1)
        seen, lacking = staying.by_group(seen), staying.by_group(lacking * gain)
        if shifted:
            seen = np.concatenate([seen, np.ones((*seen.shape[:2], 1), np.float32)], axis=2)
        mine = parts(seen.shape[1]) if whole is None else np.full(seen.shape[1], whole[seed])
        for part in Part:
            normals[part].add(seen[:, mine == part], lacking[:, mine == part])
        energy += float(np.square(full[mine == Part.REPORT][:, gain != 0], dtype=np.float64).sum())
    return normals, energy


def _solve(fit: Normal, choose: Normal, loud: NDArray[np.float64]) -> Matrix | None:
    """The best change (G, features, outputs), fitted to both; None where there is no gain. loud: (G, outputs)."""
    best, least = None, float((choose.square * loud).sum())
    if not np.isfinite(least):
        return None
    for ridge in RIDGES:
        error = float((choose.left(fit.solve(ridge)) * loud).sum())
        if error < least:
            best, least = ridge, error
    return None if best is None else (fit + choose).solve(best)


def _relative(square: NDArray[np.float64], loud: NDArray[np.float64], energy: float) -> float:
    return float(np.sqrt((square * loud).sum() / max(energy, 1e-30)))
