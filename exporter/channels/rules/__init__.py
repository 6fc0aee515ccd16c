"""The rules, one module per operator family; importing this package fills the table."""

from . import (
    comparison,
    contraction,
    einsum,
    elementwise,
    movement,
    normalization,
    quantization,
    rearrange,
    reduction,
    regroup,
    selection,
    spatial,
)
from .registry import RULES, Rule

__all__ = [
    "RULES",
    "Rule",
    "comparison",
    "contraction",
    "einsum",
    "elementwise",
    "movement",
    "normalization",
    "quantization",
    "rearrange",
    "reduction",
    "regroup",
    "selection",
    "spatial",
]
