"""When, and in how many cuts, the budget is reached."""

from .cuts import GradualCuts
from .gradual import Gradual
from .iterative import Iterative
from .layerwise import Layerwise
from .registry import Schedule, build_gradual, build_schedule
from .scoring import Recover, Scoring

__all__ = [
    "Gradual",
    "GradualCuts",
    "Iterative",
    "Layerwise",
    "Recover",
    "Schedule",
    "Scoring",
    "build_gradual",
    "build_schedule",
]
