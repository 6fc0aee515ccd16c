"""How much memory a graph needs, before it runs: what is alive when, and what that is of any plan."""

from .estimate import Estimate, estimate_memory
from .liveness import Life, Liveness, Moment, liveness
from .sized import SizedGraph, as_fused, as_written

__all__ = [
    "Estimate",
    "Life",
    "Liveness",
    "Moment",
    "SizedGraph",
    "as_fused",
    "as_written",
    "estimate_memory",
    "liveness",
]
