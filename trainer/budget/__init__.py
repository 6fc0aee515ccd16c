"""How much may stay."""

from .level import level_name, with_level
from .limits import WidthLimits, spare_one
from .macs import Macs
from .ratio import Ratio
from .registry import Budget, build_budget
from .wish import parse_wish

__all__ = [
    "Budget",
    "Macs",
    "Ratio",
    "WidthLimits",
    "build_budget",
    "level_name",
    "parse_wish",
    "spare_one",
    "with_level",
]
