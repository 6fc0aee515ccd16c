"""Read every file once before training starts, so that a bad one costs seconds and not the night.

Decoding a sample checks it (see `pairs`); this pass only asks for each in turn. What fits the cache is kept, so
the pass is the first decoding of a small data set rather than an extra one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import DataError

from .decode import DecodeError
from .samples import Samples

ReportProgress = Callable[[int, int], None]
"""Called with (files read, files in all)."""


def unheard(done: int, total: int) -> None:
    """A report to nobody."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checked:
    """What a check found: the usable samples, the files left out, and how often each mask value occurs."""

    samples: Samples
    skipped: tuple[str, ...]
    pixels: NDArray[np.int64]
    """(256,) pixels by mask value, over all usable samples."""


def check_samples(
    samples: Samples,
    on_error: Literal["raise", "skip"] = "raise",
    report: ReportProgress = unheard,
) -> Checked:
    """Decode all samples once.

    on_error: `skip` leaves out what cannot be decoded; every other problem is raised in any case.
    report: called after each file.
    Raises DataError for the first bad file, or if no usable one is left.
    """
    good: list[int] = []
    skipped: list[str] = []
    pixels = np.zeros(256, dtype=np.int64)
    for index in range(len(samples)):
        try:
            pixels += np.bincount(samples[index].mask.ravel(), minlength=256)
            good.append(index)
        except DecodeError as error:
            if on_error == "raise":
                raise
            skipped.append(str(error.path))
        report(index + 1, len(samples))
    if not good:
        raise none_usable(len(samples), skipped[0])
    usable = samples.select(good) if skipped else samples
    return Checked(samples=usable, skipped=tuple(skipped), pixels=pixels)


def none_usable(count: int, first: str) -> DataError:
    """What to say where all `count` images of a part were skipped; `first` is the path of one."""
    return DataError(
        f"all {count} images were skipped because they cannot be decoded, the first is {first}",
        "check the files; on_error: raise shows what is wrong with the first",
    )


def check_labels(
    checked: Checked, classes: Sequence[str], ignore_index: int, hint: str = "check the folder of masks"
) -> tuple[str, ...]:
    """The classes of which no pixel is labelled, which a net cannot learn.

    hint: what to do where it is one class alone.
    Raises DataError unless at least two are labelled somewhere: one alone teaches nothing.
    """
    present = [name for i, name in enumerate(classes) if checked.pixels[i] > 0 and i != ignore_index]
    if len(present) < 2:
        only = f"only class {present[0]!r} is" if present else "no class is"
        raise DataError(
            f"{only} labelled in all {len(checked.samples)} training masks ({checked.pixels[ignore_index]} pixels "
            f"have the value {ignore_index}, which means unlabelled)",
            hint,
        )
    return tuple(name for i, name in enumerate(classes) if name not in present and i != ignore_index)
