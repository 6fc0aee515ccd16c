"""Which images are held out, by seed.

The choice depends on the number of images and the seed alone, so a resumed or repeated run makes the same one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import DataError


def split_indices(
    count: int, share: float, seed: int, part: str = "validation"
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split range(count) into (kept, held out), both ascending; held out are round(share * count), at least 1.

    part: the name of the held-out part, for the message. Raises DataError if one side would be empty.
    """
    held_count = max(1, round(share * count))
    if held_count >= count:
        raise DataError(
            f"{count} image{'s are' if count != 1 else ' is'} too few to hold out {share:g} for {part}: "
            "nothing is left to train on",
            "add images, or hold out less",
        )
    order = np.random.default_rng([seed, count]).permutation(count).tolist()
    return tuple(sorted(order[held_count:])), tuple(sorted(order[:held_count]))


def split_by_class(
    labels: NDArray[np.integer], share: float, seed: int, part: str = "validation"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split positions of `labels` (n,) into (kept, held out), both ascending: round(share * count) of every class.

    A class keeps at least one image, and at least one image is held out in all. part: the held-out part's name, for
    the message. Raises DataError if there is nothing that could be held out.
    """
    held: list[NDArray[np.int64]] = []
    spare: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        order = np.random.default_rng([seed, len(labels), int(label)]).permutation(places)
        count = min(round(share * len(order)), len(order) - 1)
        held.append(order[:count])
        spare.append(order[count:-1])
    chosen = np.concatenate(held) if held else np.empty(0, np.int64)
    if not len(chosen):
        chosen = next((s[:1] for s in spare if len(s)), chosen)
    if not len(chosen):
        raise DataError(
            f"{len(labels)} images, one of each class at most, are too few to hold out {share:g} for {part}",
            "add images: each class needs two",
        )
    kept = np.setdiff1d(np.arange(len(labels)), chosen)
    return kept, np.sort(chosen)
