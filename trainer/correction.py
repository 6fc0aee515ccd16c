"""Without training: let what stays speak for what has left.

A layer that lost inputs says something else than before. Ridge regression finds the change of its remaining weights
after which it says, on calibration inputs, most nearly what it said with all channels:

    min_D  | R - X D |^2 + lambda |D|^2,       D = (X'X + lambda I)^-1 X' R
    R = dense output - present output          X = what the remaining weights read now

Layers are corrected first to last, each on what reaches it through the corrected ones before it, so that errors do
not pile up. Where the layer has a bias of its own, X has a column of ones. (He et al., ICCV 2017, reconstruct by least
squares; ridge and residual form are ours.)

Rows have three parts (`Part`). D is fitted on the first; by the second lambda is chosen, and a layer that does not gain
keeps its weights; then D is fitted to both. The error is reported on the third, which plays no other part. Rows
of one input resemble each other, so whole inputs are parted where there are enough, else rows.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.dead.sites import Site, read_site, weight_array
from edgeslim.exporter.foreign.feeds import Arrays, open_session, run_session
from edgeslim.exporter.taps import tapped

from .patches import Rows, patches, rows, window_of

LARGEST_FEATURES = 4608
"""512 channels of a 3x3 kernel: its Gram matrix has 170 MB; wider layers keep their weights."""
MOST_ROWS = 12_288
RIDGES = (1e-4, 1e-2, 1.0)
"""lambda as a share of the mean diagonal of X'X."""


class Part(enum.IntEnum):
    """What rows and inputs are for."""

    FIT = 0
    CHOOSE = 1
    REPORT = 2


def parts(count: int) -> NDArray[np.int64]:
    """(count,) of five in a row three are fitted, one is chosen by, one is reported on: spread evenly."""
    return np.resize(np.array([Part.FIT, Part.CHOOSE, Part.FIT, Part.REPORT, Part.FIT], np.int64), count)


FEWEST_INPUTS = 5
"""With fewer inputs than parts need, rows of the same inputs are parted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One layer: |R| / |Y| before and after on rows that nothing was fitted to or chosen on.

    skipped: why its weights stayed, "" if they changed.
    """

    layer: str
    error_before: float | None = None
    error_after: float | None = None
    skipped: str = ""


def correct(
    dense: ir.Model, masked: ir.Model, channels: ChannelMap, cut: Collection[int], inputs: Sequence[Arrays]
) -> tuple[ir.Model, tuple[Correction, ...]]:
    """Return `masked` with corrected consumers, and what that bought layer by layer.

    dense: the graph before the cut; masked: the same graph with silenced producers; inputs: full sets of graph inputs.
    """
    corrected = masked.clone()
    twin = dict(zip(channels.model.graph, corrected.graph))
    living, corrections = channels.living(cut), []
    for node in channels.model.graph:
        site = _consumer(node)
        axes = channels.value_ids.get(_name(node.inputs[site.operand]), ()) if site is not None else ()
        ids = axes[site.axis] if site is not None and len(axes) else None
        if site is None or ids is None or living[ids].all():
            continue
        kept_in = living[ids]
        axis = _output_axis(node, site, channels)
        kept_out = living[axis] if axis is not None else np.ones(_width(site), np.bool_)
        corrections.append(_correct_layer(dense, corrected, twin[node], site, kept_in, kept_out, inputs))
    return corrected, tuple(corrections)


def _consumer(node: ir.Node) -> Site | None:
    """A layer whose weight is one matrix over channels, and nobody else's."""
    if node.op_type not in ("Conv", "Gemm", "MatMul") or node.inputs[0] is None:
        return None
    site = read_site(node, 0, 1 if node.op_type == "Conv" else -1)
    return site if site.weight is not None else None


def _output_axis(node: ir.Node, site: Site, channels: ChannelMap) -> NDArray[np.int64] | None:
    axes = channels.value_ids.get(_name(node.outputs[0]), ())
    if not axes:
        return None
    return axes[1 if node.op_type == "Conv" else -1]


def _width(site: Site) -> int:
    return int(weight_array(site).shape[1 - site.weight_axis])


def _correct_layer(
    dense: ir.Model,
    model: ir.Model,
    node: ir.Node,
    site: Site,
    kept_in: NDArray[np.bool_],
    kept_out: NDArray[np.bool_],
    inputs: Sequence[Arrays],
) -> Correction:
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None
    layer, array = weight.name or "", weight.const_value.numpy()
    window = window_of(node) if node.op_type == "Conv" else None
    features = int(kept_in.sum()) * int(np.prod(array.shape[2:]))
    skipped = (
        "grouped, or padded by name" if node.op_type == "Conv" and window is None
        else "its input is stored transposed" if site.axis not in (1, -1)
        else "its weight is shared" if len(weight.uses()) > 1
        else f"{features} weights an output, at most {LARGEST_FEATURES}" if features > LARGEST_FEATURES
        else ""
    )  # fmt: skip
    if skipped:
        return Correction(layer=layer, skipped=skipped)

    def look(x: NDArray[np.generic], y: NDArray[np.generic], count: int, seed: int) -> tuple[Rows, Rows]:
        generator = np.random.default_rng(seed)
        if window is not None:
            return patches(x[:, kept_in], y, window, count, generator)
        return rows(x[..., kept_in], y, count, generator)

    seen, said, wanted, part = _observe(dense, model, node, look, inputs, min(5 * features + 1280, MOST_ROWS))
    if len(np.unique(part)) < len(Part):
        return Correction(layer=layer, skipped="too few calibration inputs: five rows at least")
    residual = (wanted - said)[:, kept_out].astype(np.float64)
    bias = _bias(node, len(kept_out))
    if bias is not None:
        seen = np.concatenate([seen, np.ones((len(seen), 1), np.float32)], axis=1)
    size = float(np.linalg.norm(wanted[part == Part.REPORT][:, kept_out])) or 1.0
    unseen, left = seen[part == Part.REPORT].astype(np.float64), residual[part == Part.REPORT]
    solution = _solve(seen.astype(np.float64), residual, part)
    before = float(np.linalg.norm(left)) / size
    if solution is None:
        return Correction(layer=layer, error_before=before, error_after=before, skipped="no gain on held-out rows")
    after = float(np.linalg.norm(left - unseen @ solution)) / size
    alpha = node.attributes["alpha"].as_float() if "alpha" in node.attributes else 1.0
    if bias is not None:
        beta = node.attributes["beta"].as_float() if "beta" in node.attributes else 1.0
        assert bias.const_value is not None
        shifted = bias.const_value.numpy().astype(np.float64)
        shifted[kept_out] += solution[-1] / beta
        bias.const_value = ir.tensor(shifted.astype(array.dtype), name=bias.name)
    weight.const_value = ir.tensor(
        _with_change(array, solution[:features] / alpha, site, kept_in, kept_out), name=layer
    )
    return Correction(layer=layer, error_before=before, error_after=after)


def _bias(node: ir.Node, width: int) -> ir.Value | None:
    """The layer's own bias, one number an output; None where there is none that may be changed."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    own = value is not None and value.const_value is not None and value.shape is not None and len(value.uses()) == 1
    return value if own and value is not None and tuple(value.shape or ()) == (width,) else None


def _with_change(
    array: NDArray[np.generic],
    solution: NDArray[np.float64],
    site: Site,
    kept_in: NDArray[np.bool_],
    kept_out: NDArray[np.bool_],
) -> NDArray[np.generic]:
    """Add the change (features, outputs) to the weights that stay; the others are not touched."""
    wide = np.moveaxis(array.astype(np.float64), site.weight_axis, 0)  # (I, O, taps...)
    change = solution.reshape(int(kept_in.sum()), *wide.shape[2:], int(kept_out.sum()))
    wide[np.ix_(kept_in, kept_out)] += np.moveaxis(change, -1, 1)
    return np.ascontiguousarray(np.moveaxis(wide, 0, site.weight_axis).astype(array.dtype))


def _observe(
    dense: ir.Model,
    model: ir.Model,
    node: ir.Node,
    look: Callable[[NDArray[np.generic], NDArray[np.generic], int, int], tuple[Rows, Rows]],
    inputs: Sequence[Arrays],
    count: int,
) -> tuple[Rows, Rows, Rows, NDArray[np.int64]]:
    """Rows of what the layer reads and says now, of what it said in the dense net at the same place, and their part."""
    names = [_name(node.inputs[0]), _name(node.outputs[0])]
    present = open_session(tapped(model, names), "the masked graph")
    former = open_session(tapped(dense, names[1:]), "the dense graph")
    each = -(-count // len(inputs))
    whole = parts(len(inputs)) if len(inputs) >= FEWEST_INPUTS else None
    seen, said, wanted, part = [], [], [], []
    for seed, given in enumerate(inputs):
        x, y = run_session(present, names, given, "the masked graph")
        (target,) = run_session(former, names[1:], given, "the dense graph")
        read, now = look(x, y, each, seed)
        seen.append(read)
        said.append(now)
        wanted.append(look(x, target, each, seed)[1])
        part.append(parts(len(read)) if whole is None else np.full(len(read), whole[seed]))
    return np.concatenate(seen), np.concatenate(said), np.concatenate(wanted), np.concatenate(part)


def _solve(
    seen: NDArray[np.float64], residual: NDArray[np.float64], part: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """The best change (features, outputs), fitted to all rows but those to report on; None where there is no gain."""
    grams = {p: seen[part == p].T @ seen[part == p] for p in (Part.FIT, Part.CHOOSE)}
    rights = {p: seen[part == p].T @ residual[part == p] for p in (Part.FIT, Part.CHOOSE)}
    judge, left = seen[part == Part.CHOOSE], residual[part == Part.CHOOSE]
    best, least = None, float(np.linalg.norm(left))
    if not np.isfinite(least):
        return None
    for ridge in RIDGES:
        error = float(np.linalg.norm(left - judge @ _fitted(grams[Part.FIT], rights[Part.FIT], ridge)))
        if error < least:
            best, least = ridge, error
    return (
        None
        if best is None
        else _fitted(grams[Part.FIT] + grams[Part.CHOOSE], rights[Part.FIT] + rights[Part.CHOOSE], best)
    )


def _fitted(gram: NDArray[np.float64], right: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    scale = max(float(np.trace(gram)) / len(gram), 1e-30)
    return np.asarray(np.linalg.solve(gram + ridge * scale * np.eye(len(gram)), right), np.float64)


def _name(value: ir.Value | None) -> str:
    return (value.name or "") if value is not None else ""
