"""The rules, one module per operator family; importing this package fills the table."""

from . import contraction, elementwise, movement, normalization, reduction, regroup, spatial
from .registry import RULES, Rule

__all__ = [
    "RULES",
    "Rule",
    "contraction",
    "elementwise",
    "movement",
    "normalization",
    "reduction",
    "regroup",
    "spatial",
]
