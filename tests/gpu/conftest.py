"""One fixture decides: a GPU that CUDA sees, or everything here is skipped with CUDA's reason."""

from __future__ import annotations

import pytest

from edgeslim.runtime.engines.here import Here, look_here


@pytest.fixture(scope="session", autouse=True)
def gpu() -> Here:
    """The GPU of this machine."""
    here = look_here()
    if here.compute_capability is None:
        pytest.skip(f"needs an NVIDIA GPU: {here.problem}")
    return here
