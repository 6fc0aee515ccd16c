"""Index-exact channel analysis: labels move through the graph as elements do."""

from .analyze import ChannelMap, analyze
from .coverage import Coverage
from .families import Family, Member, Unit

__all__ = ["ChannelMap", "Coverage", "Family", "Member", "Unit", "analyze"]
