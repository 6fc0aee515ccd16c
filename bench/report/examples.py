"""Example images: frame, truth, what dense and compact say, and where compact is wrong.

Of each image one window is shown, the one in which dense and compact disagree on the most labelled pixels: a window
chosen to look good would hide what compression did. Unlabelled pixels are grey everywhere and count nowhere.
Colours are those of Okabe & Ito 2008, which stay apart for colour-blind eyes; counts stand beside them in words.
"""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .numbers import percent, score

Ids = NDArray[np.uint8]
Flags = NDArray[np.bool_]

WINDOW = 160
"""Pixels a side of what is shown of an image."""
UNLABELLED = (110, 110, 110)
_OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_BLACK, _WHITE, _RIGHT = (24, 24, 24), (242, 242, 242), (150, 150, 150)
_ORANGE, _SKY, _YELLOW = (213, 94, 0), (86, 180, 233), (240, 228, 66)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One image with its truth and what both nets say.

    frame: (H, W, 3) uint8 RGB.  mask, dense, compact: (H, W) uint8 class ids; ignore_index marks unlabelled pixels.
    """

    name: str
    frame: NDArray[np.uint8]
    mask: Ids
    dense: Ids
    compact: Ids
    ignore_index: int

    def __post_init__(self) -> None:
        wanted = self.mask.shape
        if len(wanted) != 2 or self.mask.size == 0:
            raise ValueError(f"example {self.name!r}: the mask has shape {wanted}, not (H, W)")
        for field, shape in (("frame", (*wanted, 3)), ("mask", wanted), ("dense", wanted), ("compact", wanted)):
            array = getattr(self, field)
            if array.shape != shape or array.dtype != np.uint8:
                raise ValueError(f"example {self.name!r}: {field} is {array.dtype} {array.shape}, not uint8 {shape}")

    @property
    def labelled(self) -> Flags:
        """(H, W) bool: the pixels that count."""
        return np.asarray(self.mask != self.ignore_index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image as the page holds it."""

    title: str
    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One entry of a legend; colour is CSS."""

    colour: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """One example: its pictures in a row, and what they say in words."""

    name: str
    pictures: tuple[Picture, ...]
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """All examples with the legends of masks and of the difference map."""

    strips: tuple[Strip, ...]
    classes: tuple[Key, ...]
    differences: tuple[Key, ...]


def gallery(examples: Sequence[Example], classes: Sequence[str]) -> Gallery:
    """Lay out the examples. classes: names by id; two of them (or none) make the task foreground or background."""
    binary = all(max(int(a[e.labelled].max(initial=0)) for a in (e.mask, e.dense, e.compact)) <= 1 for e in examples)
    binary = binary and len(classes) <= 2
    shown = [(example, window(example)) for example in examples]
    present = sorted({int(i) for _, e in shown for a in (e.mask, e.dense, e.compact) for i in np.unique(a[e.labelled])})
    colours = {i: _class_colour(i, binary) for i in present}
    keys = [Key(colour=_css(colours[i]), text=classes[i] if i < len(classes) else f"class {i}") for i in present]
    if any(not e.labelled.all() for _, e in shown):
        keys.append(Key(colour=_css(UNLABELLED), text="not labelled, not counted"))
    return Gallery(
        strips=tuple(_strip(whole, part, colours, binary) for whole, part in shown),
        classes=tuple(keys),
        differences=tuple(Key(colour=_css(c), text=text) for text, c in _difference_colours(binary).items()),
    )


def window(example: Example, side: int = WINDOW) -> Example:
    """The part of at most `side` x `side` in which dense and compact differ most; see the module docstring."""
    height, width = (min(side, size) for size in example.mask.shape)
    labelled = example.labelled
    maps = (example.dense != example.compact, example.compact != example.mask, example.mask != 0)
    marked = next((m & labelled for m in maps if (m & labelled).any()), labelled)
    total = np.zeros((marked.shape[0] + 1, marked.shape[1] + 1), np.int64)
    total[1:, 1:] = marked.cumsum(0).cumsum(1)
    inside = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    best = np.argwhere(inside == inside.max())
    top, left = (
        int(place) for place in best[len(best) // 2]
    )  # the middle one, so that a single spot is not at a corner
    rows, columns = slice(top, top + height), slice(left, left + width)
    return Example(
        name=example.name,
        frame=example.frame[rows, columns],
        mask=example.mask[rows, columns],
        dense=example.dense[rows, columns],
        compact=example.compact[rows, columns],
        ignore_index=example.ignore_index,
    )


def _strip(whole: Example, part: Example, colours: dict[int, tuple[int, ...]], binary: bool) -> Strip:
    labelled, name = part.labelled, whole.name
    height, width = part.mask.shape

    def picture(title: str, rgb: NDArray[np.uint8], alt: str) -> Picture:
        return Picture(title=title, uri=png_uri(rgb), alt=f"{name}: {alt}", width=width, height=height)

    def painted(ids: Ids) -> NDArray[np.uint8]:
        rgb = np.full((height, width, 3), UNLABELLED, np.uint8)
        for i, colour in colours.items():
            rgb[(ids == i) & labelled] = colour
        return rgb

    kinds = differences(part, binary)
    rgb = np.full((height, width, 3), UNLABELLED, np.uint8)
    rgb[labelled] = _BLACK
    for text, colour in _difference_colours(binary).items():
        rgb[kinds[text]] = colour
    counts = ", ".join(f"{int(kinds[text].sum()):,} {text}" for text in list(kinds)[1:])
    pictures = (
        picture("Frame", part.frame, "the frame"),
        picture("Truth", painted(part.mask), "the truth"),
        picture("Dense", painted(part.dense), "what the dense net says"),
        picture("Compact", painted(part.compact), "what the compact net says"),
        picture("Difference", rgb, f"where the compact net is wrong: {counts}"),
    )
    return Strip(name=name, pictures=pictures, caption=_caption(whole, part, counts, binary))


def differences(example: Example, binary: bool) -> dict[str, Flags]:
    """(H, W) bool by kind, in the order of `_difference_colours`. Two classes: compact against the truth."""
    labelled, truth = example.labelled, example.mask
    if binary:
        kinds: tuple[Flags, ...] = (
            (example.compact == 1) & (truth == 1),
            (example.compact == 1) & (truth != 1),
            (example.compact != 1) & (truth == 1),
        )
    else:
        dense_right, compact_right = example.dense == truth, example.compact == truth
        kinds = (
            compact_right & dense_right,
            ~compact_right & dense_right,
            compact_right & ~dense_right,
            ~compact_right & ~dense_right,
        )
    return {text: labelled & kind for text, kind in zip(_difference_colours(binary), kinds)}


def _difference_colours(binary: bool) -> dict[str, tuple[int, int, int]]:
    if binary:
        return {"found (true positive)": _RIGHT, "false positive": _ORANGE, "false negative": _SKY}
    return {"right": _BLACK, "wrong only in compact": _ORANGE, "wrong only in dense": _SKY, "wrong in both": _YELLOW}


def _caption(whole: Example, part: Example, counts: str, binary: bool) -> str:
    labelled = whole.labelled
    disagree = percent(float((whole.dense != whole.compact)[labelled].mean()) if labelled.any() else None, 2)
    kind = "Dice" if binary else "share of pixels right"
    scores = [_score(ids[labelled], whole.mask[labelled], binary) for ids in (whole.dense, whole.compact)]
    height, width = whole.mask.shape
    size = f"{part.mask.shape[0]}×{part.mask.shape[1]} of {height}×{width} pixels"
    return (
        f"{size}, in it {counts}. Whole image: {kind} dense {score(scores[0])}, compact {score(scores[1])}; "
        f"dense and compact disagree on {disagree} of the labelled pixels."
    )


def _score(ids: Ids, truth: Ids, binary: bool) -> float | None:
    if not binary:
        return float((ids == truth).mean()) if truth.size else None
    found, there = ids == 1, truth == 1
    both = int(found.sum()) + int(there.sum())
    return 2 * int((found & there).sum()) / both if both else None


def png_uri(rgb: NDArray[np.uint8]) -> str:
    """(H, W, 3) uint8 as a PNG in a data: URI, the same bytes for the same pixels."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(rgb))
    colours, places = np.unique(rgb.reshape(-1, 3), axis=0, return_inverse=True)
    if len(colours) <= 256:  # a drawing, which indices store in a tenth of the bytes
        image = Image.fromarray(places.reshape(rgb.shape[:2]).astype(np.uint8))
        image.putpalette(colours.ravel().tolist())
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _class_colour(index: int, binary: bool) -> tuple[int, ...]:
    """Okabe & Ito's colours, after those hues a golden angle apart; class 0 is dark."""
    if binary:
        return (_BLACK, _WHITE)[index]
    if index == 0:
        return _BLACK
    if index <= len(_OKABE_ITO):
        return _OKABE_ITO[index - 1]
    hue = index * 0.618034 % 1.0
    return tuple(round(255 * part) for part in colorsys.hls_to_rgb(hue, (0.3, 0.78, 0.5)[index % 3], 0.6))


def _css(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
