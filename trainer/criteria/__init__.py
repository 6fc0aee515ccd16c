"""Scores that say which units matter."""

from .registry import CRITERIA, Criterion, criterion
from .units import Scored

__all__ = ["CRITERIA", "Criterion", "Scored", "criterion"]
