"""In which steps the budget is reached."""

from .iterative import Iterative
from .layerwise import Layerwise
from .registry import Schedule, build_schedule
from .scoring import Recover, Scoring

__all__ = ["Iterative", "Layerwise", "Recover", "Schedule", "Scoring", "build_schedule"]
