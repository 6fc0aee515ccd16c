"""Prune single weights: which ones go, and how they stay away.

pattern = magnitude_pattern(net, 0.9)                            the smallest 90 % of all weights
pattern = lamp_pattern(net, 0.99)                                those that matter least to their layer
pattern = threshold_pattern(net, loss, delta=0.05).pattern       as many as the loss allows
pattern = two_of_four_pattern(net)                               half of the weights, as sparse tensor cores want it
apply_pattern(net, pattern)                                      they are zero
with holding(net, pattern) as hold: ...                          and stay zero in your own training loop
"""

from .kernels import Kernel, Kernels, find_kernels
from .lamp import lamp_pattern
from .magnitude import magnitude_pattern
from .pattern import Pattern, apply_pattern, clear_momenta, holding
from .threshold import ThresholdSearch, Trial, threshold_pattern
from .two_of_four import two_of_four_pattern

__all__ = [
    "Kernel",
    "Kernels",
    "Pattern",
    "ThresholdSearch",
    "Trial",
    "apply_pattern",
    "clear_momenta",
    "find_kernels",
    "holding",
    "lamp_pattern",
    "magnitude_pattern",
    "threshold_pattern",
    "two_of_four_pattern",
]
