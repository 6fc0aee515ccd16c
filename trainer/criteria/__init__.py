"""Scores that say which units matter."""

from .registry import CRITERIA, Criterion, criterion
from .units import units

__all__ = ["CRITERIA", "Criterion", "criterion", "units"]
