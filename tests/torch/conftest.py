"""Fixtures of the tests that train."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from edgeslim.progress import Silent
from edgeslim.trainer.workspace import Workspace, open_workspace

from .runs import recipe

# How long an example takes says something about the machine, not about the code.
settings.register_profile("edgeslim", deadline=None)
settings.load_profile("edgeslim")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Nets this small lose by sharing their work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """What `runs.recipe` stands for; tests must not change it, nor train its net instead of a copy."""
    return open_workspace(recipe(), tmp_path_factory.mktemp("run"), Silent())
