"""Built-in data: retina-like images with branching vessels, made from a seed.

A demo needs data that is there without a download and that tells a good net from a poor one. Two things make
these images hard for a small net. Thin vessels are near the noise, and are seen only by following them.
And not all that is dark and narrow is a vessel: straight streaks, flame-shaped bleedings and the blurred bands
of the choroid look alike within a few pixels and differ only in their surroundings.

An image is a background reflectance times (1 - absorption) of what lies on it, per colour:

    image = vignette * illumination * (base + disc - fovea) * prod_k (1 - c_k colour_k) + exudates + noise

Pixels outside of the round field of view are unlabelled. Image i of a seed is the same on every call, whatever else
was made before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..recipe_data import VesselsData
from .samples import Sample, Samples, SegmentationData
from .split import split_indices
from .vessel_trees import Ground, Growth, Tube, draw, grow

CLASSES = ("background", "vessel")
IGNORE_INDEX = 255
_PARTS = ("train", "test")  # the position is part of the seed of an image
_DESIGN_SIZE = 192
"""Lengths below are pixels of an image this high and wide; other sizes scale them."""

# Share of red, green, blue light that a full-contrast structure takes away (blood absorbs green most).
_BLOOD = np.array([0.30, 0.62, 0.50], dtype=np.float32)
_PIGMENT = np.array([0.16, 0.34, 0.25], dtype=np.float32)
Field = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class VesselImages:
    """Loader of `Samples`: 'test-00012' -> image 12 of that part, of `seed`, at `size` (height, width)."""

    seed: int
    size: tuple[int, int]

    def __call__(self, name: str) -> Sample:
        part, _, index = name.rpartition("-")
        rng = np.random.default_rng([self.seed, _PARTS.index(part), int(index)])
        image, mask = _render(rng, self.size)
        return Sample(image=image, mask=mask, name=name)


def vessel_samples(part: Literal["train", "test"], count: int, size: tuple[int, int], seed: int) -> Samples:
    """The first `count` images of a part: (H, W, 3) uint8, masks 0 background, 1 vessel, 255 outside of the view."""
    return Samples((f"{part}-{i:05d}" for i in range(count)), VesselImages(seed=seed, size=size))


def build_vessels(spec: VesselsData, seed: int) -> SegmentationData:
    """The built-in set. Images depend on `spec.seed` alone; `seed` chooses which of them validate.

    Raises DataError if `spec.train` is too small to hold a validation set out.
    """
    kept, held = split_indices(spec.train, spec.validation, seed)
    train = vessel_samples("train", spec.train, spec.size, spec.seed)
    return SegmentationData(
        train=train.select(kept),
        validation=train.select(held),
        test=vessel_samples("test", spec.test, spec.size, spec.seed),
        classes=CLASSES,
        ignore_index=IGNORE_INDEX,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Eye:
    """The geometry of one image. Lengths and points (x, y) are pixels.

    size: (height, width). scale: a pixel of the design size. rows, columns: (H, W) coordinates. centre, radius: of the
    field of view. side: -1 or 1, a left or right eye: the disc lies on one side, the fovea on the other.
    """

    size: tuple[int, int]
    scale: float
    rows: Field
    columns: Field
    centre: NDArray[np.float64]
    radius: float
    side: float
    disc: NDArray[np.float64]


def _eye(rng: np.random.Generator, size: tuple[int, int]) -> Eye:
    scale = min(size) / _DESIGN_SIZE
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    centre = np.array([size[1], size[0]]) / 2 + rng.normal(0, 2 * scale, 2)
    radius = float(rng.uniform(0.455, 0.49) * min(size))
    side = rng.choice((-1.0, 1.0))
    disc = centre + radius * np.array([side * rng.uniform(0.35, 0.60), rng.uniform(-0.15, 0.15)])
    return Eye(size=size, scale=scale, rows=rows, columns=columns, centre=centre, radius=radius, side=side, disc=disc)


def _render(rng: np.random.Generator, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    eye = _eye(rng, size)
    distance = np.hypot(eye.columns - eye.centre[0], eye.rows - eye.centre[1]) / np.float32(eye.radius)
    tubes = _vessels(rng, eye)
    coverage, strength = draw(tubes, size)

    light = _background(rng, eye)
    light = _darken(light, _choroid(rng, eye), _PIGMENT)
    light = _darken(light, _bleedings(rng, eye), _BLOOD)
    light = _darken(light, _streaks(rng, eye), _BLOOD)
    light = _darken(light, strength, _BLOOD)
    light = light + _exudates(rng, eye)
    light = _blur(light, float(rng.uniform(0.45, 0.85)))

    light = light * (1.0 - rng.uniform(0.25, 0.45) * distance[..., None] ** 2)
    light = light + _noise(rng, size)
    light = np.where(distance[..., None] <= 1.0, light, 0.02 * light)
    image = np.round(255 * np.clip(light, 0, 1)).astype(np.uint8)
    mask = np.where(coverage >= 0.5, np.uint8(1), np.uint8(0))
    mask[distance > 0.985] = IGNORE_INDEX
    return image, mask


def _vessels(rng: np.random.Generator, eye: Eye) -> list[Tube]:
    """Two arcades above and below the fovea, and smaller vessels all round; contrast falls with the width."""
    scale = eye.scale
    growth = Growth(step=2.0 * scale, length=(18 * scale, 46 * scale), min_width=1.3 * max(scale, 0.6), cell=6 * scale)
    ground = Ground(eye.size, growth.cell)
    towards = np.pi if eye.side > 0 else 0.0
    headings = [towards + s * rng.uniform(0.7, 1.25) for s in (-1, 1, -1, 1)]
    widths = [rng.uniform(3.2, 4.4) * scale for _ in headings]
    for _ in range(int(rng.integers(3, 7))):
        headings.append(rng.uniform(0, 2 * np.pi))
        widths.append(rng.uniform(1.6, 2.8) * scale)
    tubes: list[Tube] = []
    for heading, width in zip(headings, widths):
        start = eye.disc + rng.normal(0, 2.0 * scale, 2)
        tubes += grow(rng, (start[0], start[1]), float(heading), width, growth, ground)
    strength = rng.uniform(0.8, 1.1)
    full = 4.0 * scale
    return [
        Tube(
            points=t.points,
            widths=t.widths,
            contrast=float(strength * t.contrast * (0.42 + 0.50 * min(1.0, t.widths[0] / full))),
        )
        for t in tubes
    ]


def _background(rng: np.random.Generator, eye: Eye) -> Field:
    """Fundus colour with slow illumination changes, the bright optic disc and the dark fovea: (H, W, 3)."""
    rows, columns, centre, disc, radius = eye.rows, eye.columns, eye.centre, eye.disc, eye.radius
    base = np.array([0.78, 0.42, 0.22], dtype=np.float32) * rng.uniform(0.85, 1.12, 3).astype(np.float32)
    slope = rng.normal(0, 0.12, 2)
    illumination = 1 + slope[0] * (columns - centre[0]) / radius + slope[1] * (rows - centre[1]) / radius
    illumination = illumination + 0.10 * _clouds(rng, eye.size, 5) + 0.05 * _clouds(rng, eye.size, 14)
    light = base * illumination[..., None]
    fovea = disc - np.array([eye.side * radius * rng.uniform(0.75, 0.95), radius * rng.uniform(-0.1, 0.1)])
    spot = np.hypot(columns - fovea[0], rows - fovea[1]) / (0.20 * radius)
    light = light * (1 - 0.30 * np.exp(-(spot**2)))[..., None]
    ellipse = np.hypot((columns - disc[0]) / rng.uniform(0.15, 0.19), (rows - disc[1]) / rng.uniform(0.16, 0.20))
    bright = 1 / (1 + np.exp(12 * (ellipse / radius - 1)))
    glow = np.array([0.16, 0.36, 0.24], dtype=np.float32) * rng.uniform(0.7, 1.1)
    return np.asarray(light + bright[..., None] * glow, dtype=np.float32)


def _choroid(rng: np.random.Generator, eye: Eye) -> Field:
    """Wide, blurred, pale bands that branch like vessels but lie behind the retina: not labelled."""
    scale, size = eye.scale, eye.size
    growth = Growth(
        step=3 * scale, length=(30 * scale, 70 * scale), twigs=0.0, min_width=2.4 * scale, max_tubes=8, cell=12 * scale
    )
    tubes: list[Tube] = []
    for _ in range(int(rng.integers(2, 5))):
        start = (float(rng.uniform(0, size[1])), float(rng.uniform(0, size[0])))
        tubes += grow(
            rng, start, rng.uniform(0, 2 * np.pi), rng.uniform(3, 5) * scale, growth, Ground(size, growth.cell)
        )
    return _blur(rng.uniform(0.3, 0.7) * draw(tubes, size)[1], 1.3 * scale)


def _bleedings(rng: np.random.Generator, eye: Eye) -> Field:
    """Dark dots and flame-shaped blots of the vessels' own colour: (H, W) contrast."""
    field = np.zeros_like(eye.rows)
    for _ in range(int(rng.integers(3, 11))):
        x, y = _place(rng, eye)
        long, short = rng.uniform(1.5, 6.0) * eye.scale, rng.uniform(1.0, 2.2) * eye.scale
        field = np.maximum(field, rng.uniform(0.3, 0.8) * _ellipse(rng, eye.rows - y, eye.columns - x, long, short))
    return field


def _exudates(rng: np.random.Generator, eye: Eye) -> Field:
    """Bright yellow clusters: (H, W, 3) light to add. The gaps between them look like vessels."""
    field = np.zeros_like(eye.rows)
    for _ in range(int(rng.integers(0, 4))):
        x, y = _place(rng, eye)
        for _ in range(int(rng.integers(3, 9))):
            dx, dy = rng.normal(0, 5 * eye.scale, 2)
            long, short = rng.uniform(1.0, 3.5) * eye.scale, rng.uniform(0.8, 2.0) * eye.scale
            spot = _ellipse(rng, eye.rows - y - dy, eye.columns - x - dx, long, short)
            field = np.maximum(field, rng.uniform(0.4, 1.0) * spot)
    return field[..., None] * np.array([0.20, 0.30, 0.12], dtype=np.float32)


def _streaks(rng: np.random.Generator, eye: Eye) -> Field:
    """Straight dark lines with blunt ends (folds, scratches, lashes): as wide and dark as vessels, not labelled."""
    tubes: list[Tube] = []
    for _ in range(int(rng.integers(4, 9))):
        middle, angle = np.array(_place(rng, eye)), rng.uniform(0, np.pi)
        half = rng.uniform(8, 26) * eye.scale * np.array([np.cos(angle), np.sin(angle)])
        width = rng.uniform(1.0, 2.6) * eye.scale
        tubes.append(
            Tube(
                points=np.stack([middle - half, middle + half]),
                widths=np.array([width, width]),
                contrast=float(rng.uniform(0.25, 0.55)),
            )
        )
    return draw(tubes, eye.size)[1]


def _noise(rng: np.random.Generator, size: tuple[int, int]) -> Field:
    """Sensor noise per pixel and colour, and grain two pixels wide common to the colours: (H, W, 3)."""
    sensor = rng.normal(0, rng.uniform(0.014, 0.028), (*size, 3)).astype(np.float32)
    grain = _blur(rng.normal(0, 1, size).astype(np.float32), 0.8) * np.float32(rng.uniform(0.02, 0.05))
    return sensor + grain[..., None]


def _place(rng: np.random.Generator, eye: Eye) -> tuple[float, float]:
    """A point (x, y) spread evenly over the field of view."""
    angle, reach = rng.uniform(0, 2 * np.pi), eye.radius * np.sqrt(rng.uniform(0, 0.85))
    return float(eye.centre[0] + reach * np.cos(angle)), float(eye.centre[1] + reach * np.sin(angle))


def _ellipse(rng: np.random.Generator, dy: Field, dx: Field, long: float, short: float) -> Field:
    """A turned ellipse with a soft rim around the origin of (dy, dx): (H, W) in [0, 1]."""
    angle = np.float32(rng.uniform(0, np.pi))
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / np.float32(long)
    v = (dy * np.cos(angle) - dx * np.sin(angle)) / np.float32(short)
    return np.asarray(1 / (1 + np.exp(np.clip(6 * (np.hypot(u, v) - 1), -30, 30))), dtype=np.float32)


def _darken(light: Field, contrast: Field, colour: Field) -> Field:
    return light * (1 - contrast[..., None] * colour)


def _clouds(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Field:
    """Smooth noise of unit variance with about `cells` bumps across the image: (H, W)."""
    coarse = rng.normal(0, 1, (cells + 1, cells + 1))
    y, x = (np.linspace(0, cells, n) for n in size)
    return np.asarray(_blend(y, cells) @ coarse @ _blend(x, cells).T, dtype=np.float32)


def _blend(at: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """(n, cells + 1) weights that interpolate grid values at positions `at`, with a smooth step between."""
    low = np.minimum(at.astype(int), cells - 1)
    part = at - low
    part = part * part * (3 - 2 * part)
    weights = np.zeros((len(at), cells + 1))
    weights[np.arange(len(at)), low] = 1 - part
    weights[np.arange(len(at)), low + 1] = part
    return weights


def _blur(field: Field, sigma: float) -> Field:
    """Gaussian blur of (H, W) or (H, W, 3) along its first two axes; borders repeat their edge."""
    reach = max(1, int(np.ceil(3 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for axis in (0, 1):
        pad = [(0, 0)] * field.ndim
        pad[axis] = (reach, reach)
        padded, length = np.pad(field, pad, mode="edge"), field.shape[axis]
        field = sum(
            (k * np.take(padded, range(i, i + length), axis=axis) for i, k in enumerate(kernel)),
            start=np.zeros_like(field),
        )
    return field
