"""Calibration inputs for precision: checked once, then fed one image at a time.

A scale that was measured on inputs of another range is wrong for ever after, and nothing downstream can tell. So what
does not look like the frames of a camera is refused here: other types, floats in [0, 1] where bytes are due, frames of
one colour, NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeslim.errors import DataError

from ..foreign.feeds import Arrays, InputSpec, input_specs

Sample = NDArray[np.generic] | Mapping[str, NDArray[np.generic]]
"""A batch, or a single input without its batch axis; for nets of several inputs, all of them by name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """feeds: full sets of graph inputs, each one image, or as many as the graph's own batch holds. images: how many."""

    feeds: tuple[Arrays, ...]
    images: int

    def part(self, start: int, stop: int) -> Calibration:
        """The sets from `start` up to `stop`, as many of them as there are."""
        feeds = self.feeds[start:stop]
        return Calibration(feeds=feeds, images=sum(len(next(iter(f.values()))) for f in feeds))


def open_calibration(model: ir.Model, samples: Iterable[Sample], images: int | None = None) -> Calibration:
    """Check `samples` against the inputs of `model` and cut them into sets that are fed one by one.

    samples: batches (N, ...) of any size, also of different heights and widths, or single inputs. images: how many are
    asked for; the first ones are taken. Raises DataError for the wrong type, shape or range, and for fewer than asked.
    """
    # The image leads, whatever its type: beside it there may be a vector, or a number without a batch.
    specs = {spec.name: spec for spec in sorted(input_specs(model), key=lambda spec: -len(spec.shape))}
    lead = next(iter(specs.values()))
    size = lead.shape[0] if lead.shape and isinstance(lead.shape[0], int) else 1
    feeds: list[Arrays] = []
    count = 0
    for number, sample in enumerate(samples):
        whole = _checked(specs, sample, number)
        rows = len(whole[lead.name])
        for start in range(0, rows - rows % size, size):
            if images is not None and count >= images:
                break
            feeds.append({n: a[start : start + size] if a.ndim else a for n, a in whole.items()})
            count += size
    if not feeds or (images is not None and count < images):
        wanted = f"{images} were asked for" if images is not None else f"at least {size} are needed"
        raise DataError(f"there are {count} calibration images, {wanted}", "give more images, or ask for fewer")
    _check_range(lead, [feed[lead.name] for feed in feeds])
    return Calibration(feeds=tuple(feeds), images=count)


def _checked(specs: Mapping[str, InputSpec], sample: Sample, number: int) -> Arrays:
    given = sample if isinstance(sample, Mapping) else {next(iter(specs)): sample}
    if set(given) != set(specs):
        raise DataError(
            f"calibration sample {number} has the inputs {sorted(given)}, the net takes {sorted(specs)}",
            "give all inputs by name",
        )
    found = {name: _fitting(specs[name], given[name], number) for name in specs}
    lengths = {name: len(array) for name, array in found.items() if array.ndim}
    if len(set(lengths.values())) > 1:
        raise DataError(f"calibration sample {number} has inputs of {lengths} rows", "give as many rows of each")
    return found


def _fitting(spec: InputSpec, given: NDArray[np.generic], number: int) -> NDArray[np.generic]:
    """The array with its batch axis. Raises DataError where type or shape is another, or a number is none."""
    where = f"calibration sample {number}, input {spec.name}"
    if not isinstance(given, np.ndarray):
        raise DataError(f"{where} is a {type(given).__name__}", "give NumPy arrays")
    if given.dtype != spec.dtype:
        raise DataError(f"{where} has dtype {given.dtype}, the net takes {spec.dtype}", _other_type(spec, given))
    array = given[np.newaxis] if given.ndim == len(spec.shape) - 1 else given
    shape = ("batch", *spec.shape[1:]) if spec.shape else ()  # a single number is the same for all images
    fits = array.ndim == len(spec.shape) and all(
        array.shape[axis] == size for axis, size in enumerate(shape) if isinstance(size, int)
    )
    if not fits or array.size == 0:
        wanted = ", ".join(str(size) or "any" for size in shape)
        raise DataError(
            f"{where} has shape {given.shape}, the net takes ({wanted})", "give frames as the net reads them"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where} has values that are NaN or infinite", "look at how these inputs are made")
    return array


def _other_type(spec: InputSpec, given: NDArray[np.generic]) -> str:
    if spec.dtype != np.uint8:
        return f"give {spec.dtype} as the net reads it"
    if given.dtype.kind == "f" and given.size and given.min() >= 0 and given.max() <= 1:
        return "these look like pixels divided by 255: give the camera's own bytes, the net normalises them itself"
    return "give the camera's 8-bit pixels: the net normalises them itself"


def _check_range(lead: InputSpec, arrays: Sequence[NDArray[np.generic]]) -> None:
    """Raise DataError where no image has content, or bytes hold 0 and 1 only."""
    flat = [array.reshape(len(array), -1) for array in arrays]
    if all(bool((rows == rows[:, :1]).all()) for rows in flat):
        raise DataError(
            f"every calibration image of input {lead.name} is one constant value",
            "give real frames: a range that was measured on these fits nothing else",
        )
    if lead.dtype == np.uint8 and max(int(rows.max()) for rows in flat) <= 1:
        raise DataError(
            f"the calibration frames of input {lead.name} hold 0 and 1 only; frames go from 0 to 255",
            "these look like pixels divided by 255 and cut to whole numbers: give the camera's own bytes",
        )
