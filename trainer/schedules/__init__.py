"""In which steps the budget is reached."""

from .iterative import Iterative
from .layerwise import Layerwise
from .registry import Schedule, build_schedule

__all__ = ["Iterative", "Layerwise", "Schedule", "build_schedule"]
