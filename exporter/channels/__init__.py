"""Index-exact channel analysis: labels move through the graph as elements do."""

from .analyze import ChannelMap, Family, Member, Unit, analyze
from .coverage import Coverage

__all__ = ["ChannelMap", "Coverage", "Family", "Member", "Unit", "analyze"]
