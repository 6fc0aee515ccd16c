"""Trees of curving, tapering tubes: the geometry of the built-in retina images.

A branch walks in steps of `step` pixels; its curvature is a first-order autoregressive noise, so it bends smoothly.
Its width shrinks a little with each step. At its end it forks into a main and a side child, of widths that keep
the sum of cubes (Murray 1926), and on its way it drops thin twigs. A tree ends where it gets thinner than
`min_width`, leaves the image, or enters a cell of the ground that another branch has taken: vessels spread out to
serve the whole retina, and seldom cross.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SUPERSAMPLE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Tube:
    """A piece of a tree: points (n, 2) float64 as (x, y) pixels, widths (n,) pixels, contrast in [0, 1]."""

    points: NDArray[np.float64]
    widths: NDArray[np.float64]
    contrast: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How a tree grows. Lengths in pixels, angles in radians."""

    step: float
    length: tuple[float, float]
    """Shortest and longest way between two forks."""
    bend: float = 0.04
    """Standard deviation of the change of curvature per step."""
    fork: tuple[float, float] = (0.30, 0.75)
    """Angle between a side child and its parent."""
    twigs: float = 0.8
    """Mean number of thin twigs per branch."""
    min_width: float = 1.0
    max_tubes: int = 28
    cell: float = 6.0
    """Side of a square of ground that one branch takes for itself."""


class Ground:
    """Which square cells of an image are taken by a branch already."""

    def __init__(self, size: tuple[int, int], cell: float) -> None:
        self.size, self.cell = size, cell
        self._taken = np.zeros((int(size[0] / cell) + 1, int(size[1] / cell) + 1), dtype=bool)

    def free_way(self, points: NDArray[np.float64], away: float) -> int:
        """How many of the points (n, 2) lie inside the image and on free ground.

        Ground nearer than `away` to the first point counts as free: that is where the branch comes from.
        """
        stopped = np.any((points < 0) | (points >= np.array(self.size[::-1])), axis=1)
        columns, rows = (np.clip(points, 0, None) / self.cell).astype(int).T
        rows = np.minimum(rows, self._taken.shape[0] - 1)
        columns = np.minimum(columns, self._taken.shape[1] - 1)
        far = np.hypot(*(points - points[0]).T) > away
        stopped |= self._taken[rows, columns] & far
        return int(np.argmax(stopped)) if stopped.any() else len(points)

    def take(self, points: NDArray[np.float64]) -> None:
        columns, rows = (points / self.cell).astype(int).T
        self._taken[rows, columns] = True


def grow(
    rng: np.random.Generator,
    start: tuple[float, float],
    angle: float,
    width: float,
    growth: Growth,
    ground: Ground,
) -> list[Tube]:
    """The tubes of one tree that starts at `start` (x, y) in direction `angle`, on what `ground` has left."""
    tubes: list[Tube] = []
    waiting = [(np.asarray(start, dtype=np.float64), angle, width)]
    while waiting and len(tubes) < growth.max_tubes:
        origin, heading, thickness = waiting.pop(0)
        points, headings = _walk(rng, origin, heading, growth)
        whole = len(points)
        points = points[: ground.free_way(points, 1.6 * growth.cell + thickness)]
        if len(points) < 5:
            continue
        ground.take(points)
        widths = thickness * np.power(0.994, np.arange(len(points)), dtype=np.float64)
        tubes.append(Tube(points=points, widths=widths, contrast=float(rng.uniform(0.7, 1.15))))
        for _ in range(rng.poisson(growth.twigs)):
            at = int(rng.integers(len(points)))
            if widths[at] > 1.4 * growth.min_width:
                side = rng.choice((-1.0, 1.0)) * rng.uniform(0.5, 1.3)
                twig = growth.min_width * rng.uniform(1.0, 1.5)
                waiting.append((points[at], headings[at] + side, twig))
        if len(points) < whole:
            continue
        share = rng.uniform(0.55, 0.85)  # the main child's share of the cube of the width
        side = rng.choice((-1.0, 1.0)) * rng.uniform(*growth.fork)
        for part, turn in ((share, -0.35 * side), (1.0 - share, side)):
            child = float(widths[-1] * part ** (1 / 3))
            if child >= growth.min_width:
                waiting.append((points[-1], headings[-1] + turn, child))
    return tubes


def _walk(
    rng: np.random.Generator, origin: NDArray[np.float64], heading: float, growth: Growth
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (n, 2) and headings (n,) of one branch."""
    count = max(4, int(rng.uniform(*growth.length) / growth.step))
    curvatures = []
    curvature = float(rng.normal(0.0, growth.bend))
    for noise in rng.normal(0.0, growth.bend, count).tolist():
        curvature = 0.85 * curvature + noise
        curvatures.append(curvature)
    headings = heading + np.concatenate([[0.0], np.cumsum(curvatures)])
    steps = growth.step * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    return origin + np.concatenate([[[0.0, 0.0]], np.cumsum(steps[:-1], axis=0)]), headings


def draw(tubes: list[Tube], size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rasterise: coverage (H, W) and contrast-weighted coverage (H, W), float32 in [0, 1], antialiased.

    Thin tubes are drawn first, so that where two cross, the thick one is seen.
    """
    height, width = size
    canvas = Image.new("L", (width * SUPERSAMPLE, height * SUPERSAMPLE))
    pen = ImageDraw.Draw(canvas)
    for tube in sorted(tubes, key=lambda t: float(t.widths[0])):
        points = [(x, y) for x, y in ((tube.points + 0.5) * SUPERSAMPLE).tolist()]
        level = min(255, max(1, round(255 * tube.contrast)))
        for a, b, thickness in zip(points, points[1:], (tube.widths * SUPERSAMPLE).tolist()):
            radius = thickness / 2
            pen.line((a, b), fill=level, width=max(1, round(thickness)))
            pen.ellipse((b[0] - radius, b[1] - radius, b[0] + radius, b[1] + radius), fill=level)
    covered = canvas.point([0] + [255] * 255)
    return _shrunk(covered), _shrunk(canvas)


def _shrunk(canvas: Image.Image) -> NDArray[np.float32]:
    """Mean over the SUPERSAMPLE x SUPERSAMPLE block of each pixel: (H, W) float32 in [0, 1]."""
    return np.asarray(canvas.reduce(SUPERSAMPLE), dtype=np.float32) / np.float32(255)
