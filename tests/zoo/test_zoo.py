"""Some of torchvision's nets; `make zoo` checks all of them."""

from __future__ import annotations

import pytest
import torch

from edgeslim.trainer.pruned import PrunedModel

from .check import check, half_of_every_family
from .vision import SAMPLE, zoo

OPEN = 0.65
"""Share of the output channels that must be open to pruning; what these nets keep is mostly their last layer."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torchvision"),
]


@pytest.mark.parametrize("name", SAMPLE)
def test_compact_equals_masked(name: str) -> None:
    net = zoo()[name]
    seen = check(name, net.build, (1, 3, net.size, net.size), singles=2)
    assert seen.verdict == "equal", seen
    assert seen.prunable_channels > OPEN * seen.channels, seen.reasons


@pytest.mark.xfail(
    strict=True, raises=ValueError, reason="a state is loaded without the metadata that this class looks for"
)
def test_what_was_trained_compact_shows_in_dense_shapes() -> None:
    model = PrunedModel.from_module(zoo()["mnasnet0_5"].build().eval(), torch.randn(1, 3, 64, 64))
    model.apply_cut(half_of_every_family(model.channels))
    model.compact()
    assert model.module is not None
