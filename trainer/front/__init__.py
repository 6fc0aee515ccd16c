"""Nets between the dense one and a recipe's budget, from one run."""

from .points import FRONT, Point, level_points, parent_of
from .run import compress_front

__all__ = ["FRONT", "Point", "compress_front", "level_points", "parent_of"]
