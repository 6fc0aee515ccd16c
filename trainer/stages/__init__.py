"""The stages of a run, one file each, and their order."""

from .dense import train_dense
from .run import Begun, Trained, analyze_net, train_and_prune, train_rest, train_shared
from .scoring import check_budget

__all__ = [
    "Begun",
    "Trained",
    "analyze_net",
    "check_budget",
    "train_and_prune",
    "train_dense",
    "train_rest",
    "train_shared",
]
