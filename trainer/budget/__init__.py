"""How much may stay."""

from .limits import WidthLimits, spare_one
from .macs import Macs
from .ratio import Ratio
from .registry import Budget, build_budget
from .wish import parse_wish

__all__ = ["Budget", "Macs", "Ratio", "WidthLimits", "build_budget", "parse_wish", "spare_one"]
