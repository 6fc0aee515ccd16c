"""Targets on the device on paper, and scores for them: for tests of what is planned and of what is remembered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeslim.bench.profile import CollectOptions, DeviceProfile, Place
from edgeslim.exporter.channels import ChannelMap
from edgeslim.progress import Silent
from edgeslim.trainer.budget import WidthLimits
from edgeslim.trainer.budget.memo import Memo, NoMemo
from edgeslim.trainer.budget.target import Target
from edgeslim.trainer.budget.targets import parse_target

from .fake_device import FakeObserver, net, place_of

IMAGE = (1, 3, 16, 16)
OPTIONS = CollectOptions(nets=24, seconds=0.01)


def target_of(
    profile: DeviceProfile | None,
    text: str,
    *,
    channels: ChannelMap | None = None,
    observer: FakeObserver | None = None,
    memo: Memo | None = None,
    part: float = 1.0,
    foreign: bool = False,
    min_share: float = 0.25,
    progress: Silent | None = None,
) -> Target:
    observer = observer or FakeObserver()
    place = None if profile is None else place_of(profile, observer)
    if place is not None and foreign:
        place = Place(fingerprint=place.fingerprint, profile=place.profile, observer=None)
    return Target(
        limits=parse_target(text),
        text=text,
        channels=channels or net("residual"),
        shape=IMAGE,
        place=place,
        widths=WidthLimits(multiple=1, minimum=1),
        min_share=min_share,
        progress=progress or Silent(),
        memo=memo or NoMemo(),
        part=part,
        options=OPTIONS,
    )


def random_scores(channels: ChannelMap, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random(len(channels.unit_labels))
