"""Removes channels for good, proves that nothing changed, and writes the bundle.

Torch is known to `trace`, with its `translations`, and to `shrink` alone: they are imported when a module is at hand.
"""

from .certificate import Tolerance
from .channels import ChannelMap, Coverage, analyze
from .export import export
from .plan import PruningPlan

__all__ = ["ChannelMap", "Coverage", "PruningPlan", "Tolerance", "analyze", "export"]
