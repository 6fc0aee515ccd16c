"""The stages of a run, one file each, and their order."""

from .dense import train_dense
from .run import Trained, train_and_prune

__all__ = ["Trained", "train_and_prune", "train_dense"]
