"""Least squares from sums alone: rows are added and forgotten. G problems of equal size side by side.

min_D |R - X D|^2 + ridge * s * |D|^2,      D = (X'X + ridge s I)^-1 X'R,      s = mean diagonal of X'X
|R - X D|^2 = |R|^2 - 2 <D, X'R> + <D, X'X D>
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_CHUNK = 8192


class Normal:
    """The normal equations of X (G, rows, features) and R (G, rows, outputs). count: rows of each added so far."""

    def __init__(self, groups: int, features: int, outputs: int) -> None:
        self.gram: Matrix = np.zeros((groups, features, features))
        self.right: Matrix = np.zeros((groups, features, outputs))
        self.square: Matrix = np.zeros((groups, outputs))
        self.count = 0

    def add(self, x: NDArray[np.float32], r: NDArray[np.float32]) -> None:
        """Add rows. Products are float32 over some thousand rows, their sums float64."""
        for start in range(0, x.shape[1], _CHUNK):
            some, theirs = x[:, start : start + _CHUNK], r[:, start : start + _CHUNK]
            across = np.swapaxes(some, 1, 2)
            self.gram += across @ some
            self.right += across @ theirs
        self.square += np.square(r, dtype=np.float64).sum(axis=1)
        self.count += x.shape[1]

    def __add__(self, other: Normal) -> Normal:
        """All rows of both."""
        both = Normal(*self.right.shape)
        both.gram, both.right = self.gram + other.gram, self.right + other.right
        both.square, both.count = self.square + other.square, self.count + other.count
        return both

    def solve(self, ridge: float) -> Matrix:
        """D (G, features, outputs)."""
        return np.asarray(np.linalg.solve(self.damped(ridge), self.right), np.float64)

    def damped(self, ridge: float) -> Matrix:
        """X'X + ridge s I, (G, features, features); each problem has its own s."""
        features = self.gram.shape[1]
        scale = np.maximum(np.trace(self.gram, axis1=1, axis2=2) / max(features, 1), 1e-30)
        return np.asarray(self.gram + ridge * scale[:, None, None] * np.eye(features), np.float64)

    def left(self, change: Matrix) -> Matrix:
        """(G, outputs) |R - X D|^2 of each column, for any D. Never below zero."""
        left = self.square - 2 * (change * self.right).sum(axis=1) + (change * (self.gram @ change)).sum(axis=1)
        return np.asarray(np.maximum(left, 0.0), np.float64)
