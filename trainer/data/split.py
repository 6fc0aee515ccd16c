"""Which images are held out, by seed.

The choice depends on the number of images and the seed alone, so a resumed or repeated run makes the same one.
"""

from __future__ import annotations

import numpy as np

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
