"""Several processes for one run: who they are, what they share, and how they notice that they differ."""

from .group import ALONE, Ranks
from .launch import Launch, Strategy

__all__ = ["ALONE", "Launch", "Ranks", "Strategy"]
