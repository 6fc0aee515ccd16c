"""What a data set is: named samples, decoded when asked for, in three parts that never mix.

`Samples` holds names and a loader. A sample is decoded on first use and kept while the memory bound allows, so a
small set is decoded once and a large one streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InvariantError

CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One image and its labels.

    image: (H, W, 3) uint8, RGB. mask: (H, W) uint8 class ids, the set's `ignore_index` where unlabelled.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    name: str

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.mask.dtype != np.uint8:
            raise InvariantError(f"{self.name}: image {self.image.dtype} and mask {self.mask.dtype}, not uint8")
        if self.image.shape != (*self.mask.shape, 3) or self.mask.ndim != 2:
            raise InvariantError(f"{self.name}: image {self.image.shape} beside mask {self.mask.shape}")

    @property
    def nbytes(self) -> int:
        return self.image.nbytes + self.mask.nbytes


class Samples(Sequence[Sample]):
    """A sequence of samples: `load(name)` makes one, at most `cache_bytes` of them stay in memory.

    The cache keeps what came first and never evicts: under random access that hits as often as any other policy.
    """

    def __init__(self, names: Iterable[str], load: Callable[[str], Sample], cache_bytes: int = CACHE_BYTES) -> None:
        self.names: tuple[str, ...] = tuple(names)
        self._load = load
        self._cache: dict[str, Sample] = {}
        self._cache_bytes = self._free_bytes = cache_bytes

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        name = self.names[index]
        if name in self._cache:
            return self._cache[name]
        sample = self._load(name)
        if sample.nbytes <= self._free_bytes:
            self._free_bytes -= sample.nbytes
            self._cache[name] = sample
        return sample

    def select(self, indices: Iterable[int]) -> Samples:
        """The samples at `indices`, in that order; what is decoded already is shared, not decoded again."""
        chosen = Samples((self.names[i] for i in indices), self._load, self._free_bytes)
        chosen._cache = {name: self._cache[name] for name in chosen.names if name in self._cache}
        return chosen

    def __reduce__(self) -> tuple[object, ...]:
        """A loader process gets names and loader; shipping the decoded images would cost more than decoding."""
        return Samples, (self.names, self._load, self._cache_bytes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentationData:
    """A data set ready for training. Every choice is made on `validation`; `test` is read once, at the end."""

    train: Samples
    validation: Samples
    test: Samples
    classes: tuple[str, ...]
    ignore_index: int
    absent: tuple[str, ...] = ()
    """Classes of which no pixel is labelled in the training images."""
    skipped: tuple[str, ...] = ()
    """Files left out because they could not be decoded (`on_error: skip`)."""
