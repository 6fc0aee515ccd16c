"""How much may stay."""

from .limits import WidthLimits, spare_one
from .macs import Macs
from .ratio import Ratio
from .registry import Budget, build_budget

__all__ = ["Budget", "Macs", "Ratio", "WidthLimits", "build_budget", "spare_one"]
