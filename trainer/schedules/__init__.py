"""In which steps the budget is reached."""

from .iterative import prune_iteratively

__all__ = ["prune_iteratively"]
