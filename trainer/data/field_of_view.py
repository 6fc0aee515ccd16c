"""Retinal photographs whose round field of view is given as a picture of its own.

Pixels outside of it are unlabelled: a camera's black border says nothing about vessels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .decode import decode_mask
from .pairs import PairLoader, check_sizes
from .samples import Sample

CLASSES = ("background", "vessel")
IGNORE_INDEX = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldOfViewLoader:
    """Loader of `Samples`: image and one observer's vessels, unlabelled outside of the field of view.

    Without an entry in `fields_of_view` the whole image is labelled.
    """

    vessels: PairLoader
    fields_of_view: Mapping[str, Path]

    def __call__(self, name: str) -> Sample:
        sample = self.vessels(name)
        path = self.fields_of_view.get(name)
        if path is None:
            return sample
        inside = decode_mask(path, binary=True)
        check_sizes(self.vessels.pairs[name].image, sample.mask.shape, path, inside.shape)
        mask = np.where(inside == 1, sample.mask, np.uint8(IGNORE_INDEX))
        return Sample(image=sample.image, mask=mask, name=name)
