"""Real inputs for a net that somebody else made: read from a file, checked against what the graph takes."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import ConfigError
from edgeslim.exporter.foreign.feeds import Arrays, InputSpec
from edgeslim.runtime.npz import read_npz

Calibration = NDArray[np.generic] | Mapping[str, NDArray[np.generic]]
"""Real inputs, (N, ...): of the one graph input, or of each by name."""


def read_calibration(path: str | os.PathLike[str]) -> dict[str, NDArray[np.generic]]:
    """The arrays of an .npz file (no pickles). Raises ConfigError."""
    return read_npz(
        path,
        error=ConfigError,
        hint="write it with numpy.savez(path, input_name=images), images (N, ...) as the net takes them",
    )


def samples(specs: tuple[InputSpec, ...], calibration: Calibration | None) -> tuple[Arrays, ...]:
    """One full set of graph inputs a sample (a batch where the graph fixes its size). Raises ConfigError."""
    if calibration is None:
        return ()
    names = {s.name for s in specs}
    arrays = dict(calibration) if isinstance(calibration, Mapping) else {specs[0].name: calibration}
    if len(specs) == 1 and len(arrays) == 1:
        arrays = {specs[0].name: next(iter(arrays.values()))}
    if set(arrays) != names:
        raise ConfigError(
            f"calibration has {', '.join(sorted(arrays)) or 'nothing'}; the inputs are {', '.join(sorted(names))}",
            "give one array (N, ...) for each input, under its name",
        )
    counts = {len(a) for a in arrays.values() if isinstance(a, np.ndarray) and a.ndim}
    if len(counts) != 1 or 0 in counts:
        raise ConfigError("calibration arrays are empty, or not equally long", "give as many samples for every input")
    (count,) = counts
    batch = next((s.shape[0] for s in specs if s.shape and isinstance(s.shape[0], int)), 1)
    for spec in specs:
        array = arrays[spec.name]
        fits = array.ndim == len(spec.shape) and all(
            not isinstance(d, int) or d == n for d, n in zip(spec.shape[1:], array.shape[1:])
        )
        if not fits or array.dtype.kind not in "biuf" or not np.isfinite(array).all() or count < int(batch):
            wanted = " x ".join(str(d or "?") for d in spec.shape)
            raise ConfigError(
                f"calibration of {spec.name} is {array.dtype} {array.shape}; the graph takes {spec.dtype} {wanted}",
                "give finite numbers of that shape, normalised as the net expects, one sample after the other",
            )
    steps = range(0, count - int(batch) + 1, int(batch))
    return tuple({s.name: arrays[s.name][i : i + int(batch)].astype(s.dtype) for s in specs} for i in steps)
