"""Penalties that make weights, and then channels, dispensable."""

from .l0 import L0
from .registry import Regularizer, build_regularizer, kernels, penalty_term

__all__ = ["L0", "Regularizer", "build_regularizer", "kernels", "penalty_term"]
