"""Decides which channels die, and trains the net so that it does not miss them."""

from .prune import prune
from .pruned import PrunedModel

__all__ = ["PrunedModel", "prune"]
