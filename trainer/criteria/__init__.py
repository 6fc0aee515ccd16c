"""Scores that say which units matter."""

from .protocol import Criterion, Differentiable
from .registry import CRITERIA, build_criterion, criterion
from .units import Pooling, Scored

__all__ = ["CRITERIA", "Criterion", "Differentiable", "Pooling", "Scored", "build_criterion", "criterion"]
