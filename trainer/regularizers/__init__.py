"""Penalties that make weights, and then channels, dispensable."""

from .bn_scale import BnScale
from .gradient_count import GradientCount
from .group_lasso import GroupLasso
from .l0 import L0
from .l1 import L1
from .l2 import L2
from .penalties import Penalties, Scheduled, check_penalties, penalties, schedule
from .redundancy import Redundancy
from .registry import REGULARIZERS, Regularizer, build_regularizer
from .view import Kernel, View, view_of

__all__ = [
    "L0",
    "L1",
    "L2",
    "REGULARIZERS",
    "BnScale",
    "GradientCount",
    "GroupLasso",
    "Kernel",
    "Penalties",
    "Redundancy",
    "Regularizer",
    "Scheduled",
    "View",
    "build_regularizer",
    "check_penalties",
    "penalties",
    "schedule",
    "view_of",
]
