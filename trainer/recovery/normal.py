"""Least squares from sums alone: rows are added and forgotten.

min_D |R - X D|^2 + ridge * s * |D|^2,      D = (X'X + ridge s I)^-1 X'R,      s = mean diagonal of X'X
|R - X D|^2 = |R|^2 - 2 <D, X'R> + <D, X'X D>
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_CHUNK = 8192


class Normal:
    """The normal equations of X (rows, features) and R (rows, outputs). count: rows added so far."""

    def __init__(self, features: int, outputs: int) -> None:
        self.gram: Matrix = np.zeros((features, features))
        self.right: Matrix = np.zeros((features, outputs))
        self.square: Matrix = np.zeros(outputs)
        self.count = 0

    def add(self, x: NDArray[np.float32], r: NDArray[np.float32]) -> None:
        """Add rows. Products are float32 over some thousand rows, their sums float64."""
        for start in range(0, len(x), _CHUNK):
            some, theirs = x[start : start + _CHUNK], r[start : start + _CHUNK]
            self.gram += some.T @ some
            self.right += some.T @ theirs
        self.square += np.square(r, dtype=np.float64).sum(axis=0)
        self.count += len(x)

    def __add__(self, other: Normal) -> Normal:
        """All rows of both."""
        both = Normal(*self.right.shape)
        both.gram, both.right = self.gram + other.gram, self.right + other.right
        both.square, both.count = self.square + other.square, self.count + other.count
        return both

    def solve(self, ridge: float) -> Matrix:
        """D (features, outputs)."""
        return np.asarray(np.linalg.solve(self.damped(ridge), self.right), np.float64)

    def damped(self, ridge: float) -> Matrix:
        """X'X + ridge s I."""
        scale = max(float(np.trace(self.gram)) / max(len(self.gram), 1), 1e-30)
        return self.gram + ridge * scale * np.eye(len(self.gram))

    def left(self, change: Matrix) -> Matrix:
        """(outputs,) |R - X D|^2 of each column, for any D. Never below zero."""
        left = self.square - 2 * (change * self.right).sum(axis=0) + (change * (self.gram @ change)).sum(axis=0)
        return np.asarray(np.maximum(left, 0.0), np.float64)
