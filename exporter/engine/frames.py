"""For which batches of frames an engine is built."""

from __future__ import annotations

import math
from collections.abc import Iterable

from edgeslim.errors import ConfigError
from edgeslim.runtime import Bundle, FrameRange
from edgeslim.runtime.variants import FrameSize


def frames_of(bundle: Bundle, asked: FrameRange | None) -> tuple[FrameRange, tuple[str, ...]]:
    """What was asked for, else the manifest's range, else single frames of its benchmark size; and remarks.

    Without golden vectors in it a range proves nothing: one that nobody asked for is widened until it holds one.
    Raises ConfigError for sides that the net does not take.
    """
    manifest = bundle.manifest
    if asked is not None:
        multiple = manifest.image.size_multiple
        for size in (asked.minimum, asked.optimum, asked.maximum):
            if any(n % multiple for n in size[1:]):
                up = "x".join(str(-(-n // multiple) * multiple) for n in size[1:])
                raise ConfigError(
                    f"frames of {size[1]}x{size[2]} were asked for, {manifest.name} takes multiples of {multiple}",
                    f"for example {up}",
                )
        return asked, ()
    if manifest.frame_range is not None:
        return manifest.frame_range, ()
    fixed = manifest.inputs[0].shape[:3]
    usual = _size(n if isinstance(n, int) else m for n, m in zip(fixed, (1, *manifest.bench_size)))
    single = FrameRange(minimum=usual, optimum=usual, maximum=usual)
    golden = () if manifest.golden is None else bundle.golden_cases()
    cases = [_size(case.inputs[manifest.inputs[0].name].shape[:3]) for case in golden]
    if not cases or any(case in single for case in cases):
        return single, ()
    nearest = min(cases, key=lambda case: abs(math.prod(case) - math.prod(usual)))
    wider = FrameRange(minimum=_size(map(min, usual, nearest)), optimum=usual, maximum=_size(map(max, usual, nearest)))
    return wider, (f"the engine takes frames of {wider}, so that a golden vector fits; --frames narrows it",)


def _size(numbers: Iterable[int]) -> FrameSize:
    batch, height, width = numbers
    return batch, height, width
