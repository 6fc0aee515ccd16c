"""Make up for a cut without training, one method after the other, and say what each bought.

A method is kept only if the outputs of the whole net come nearer to what they were, on inputs set aside to decide
that; how near they come is reported on further ones, which take part in nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.errors import ConfigError
from edgeslim.exporter.channels import ChannelMap
from edgeslim.exporter.foreign.feeds import Arrays, open_session, run_session
from edgeslim.exporter.weights import with_weights

from .batch_norm import reestimate
from .held_out import FEWEST_INPUTS, Part, of_part
from .least_squares import Correction, correct
from .twins import merge_twins

Changes = Mapping[str, NDArray[np.generic]]
"""Initializers that change, by name."""

Method = Callable[
    [ir.Model, ir.Model, ChannelMap, Collection[int], Sequence[Arrays]], tuple[Changes, tuple[Correction, ...]]
]

METHODS: dict[str, Method] = {"batch_norm": reestimate, "twins": merge_twins, "least_squares": correct}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What one method bought: |output - original's| / |original's| before and after. kept: it stayed."""

    method: str
    before: float
    after: float
    kept: bool
    corrections: tuple[Correction, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What became of a masked net. unseen: on how many inputs the errors are measured that took part in nothing.

    0 where there are too few to spare one: then on all.
    """

    changes: Changes
    gains: tuple[Gain, ...]
    unseen: int


def check_methods(methods: Sequence[str]) -> None:
    """Raise ConfigError for a name that is no method."""
    for name in methods if not isinstance(methods, str) else [methods]:
        if name not in METHODS or isinstance(methods, str):
            raise ConfigError(f"recovery {methods!r} is unknown", f"give a list of {', '.join(METHODS)}; [] for none")


def recover(
    dense: ir.Model,
    masked: ir.Model,
    channels: ChannelMap,
    cut: Collection[int],
    inputs: Sequence[Arrays],
    methods: Sequence[str] = ("least_squares",),
) -> Recovery:
    """Run `methods` on `masked`, in this order.

    dense: the graph before the cut. inputs: full sets of graph inputs, real ones. Raises ConfigError for an unknown
    method, DataError or ExportError where the net does not run on an input.
    """
    check_methods(methods)
    deciding, reporting = of_part(inputs, Part.CHOOSE), of_part(inputs, Part.REPORT)
    decided, reported = distance(masked, dense, deciding), distance(masked, dense, reporting)
    changes: dict[str, NDArray[np.generic]] = {}
    gains = []
    for name in methods:
        found, corrections = METHODS[name](dense, masked, channels, cut, inputs)
        candidate = with_weights(masked, found)
        now, before = distance(candidate, dense, deciding), reported
        if kept := bool(found) and now < decided:
            masked, decided, reported = candidate, now, distance(candidate, dense, reporting)
            changes.update(found)
        else:
            corrections = tuple(
                Correction(layer=c.layer, skipped=c.skipped or "the whole net did not gain") for c in corrections
            )
        gains.append(Gain(method=name, before=before, after=reported, kept=kept, corrections=corrections))
    return Recovery(changes=changes, gains=tuple(gains), unseen=len(reporting) if len(inputs) >= FEWEST_INPUTS else 0)


def distance(model: ir.Model, reference: ir.Model, inputs: Sequence[Arrays]) -> float:
    """|outputs - reference's| / |reference's| over all inputs."""
    forms = {"the masked graph": model, "the graph": reference}
    sessions = {what: open_session(ir.to_proto(form).SerializeToString(), what) for what, form in forms.items()}
    total = size = 0.0
    for given in inputs:
        for a, b in zip(*(run_session(session, None, given, what) for what, session in sessions.items())):
            if b.dtype.kind != "f":
                continue
            total += float(np.square(a.astype(np.float64) - b.astype(np.float64)).sum())
            size += float(np.square(b.astype(np.float64)).sum())
    return float(np.sqrt(total / max(size, 1e-300)))
