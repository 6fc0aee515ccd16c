"""Example images of a classification: the truth, and what dense and compact say with which probability.

Shown are the images on which the nets disagree before all others: a choice made to look good would hide what
compression did. How many of how many disagree stands above them in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .examples import png_uri
from .numbers import percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What a net says of an image. label: a position among the classes.  probability: its softmax, in [0, 1]."""

    label: int
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerExample:
    """One image with its class and what both nets say.

    frame: (H, W, 3) or (H, W, 1) uint8.  truth: a position among the classes.  looked_at, disagreements: of how many
    images this one was chosen from, and on how many of them dense and compact say different classes.
    """

    name: str
    frame: NDArray[np.uint8]
    truth: int
    dense: Guess
    compact: Guess
    looked_at: int
    disagreements: int

    def __post_init__(self) -> None:
        shape = self.frame.shape
        if self.frame.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3) or not self.frame.size:
            raise ValueError(
                f"example {self.name!r}: the frame is {self.frame.dtype} {shape}, not uint8 (H, W, 3 or 1)"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one net says, in words, and whether it is right."""

    net: str
    text: str
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One image as the page holds it."""

    name: str
    uri: str
    alt: str
    width: int
    height: int
    truth: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """All cards, and one sentence on how they were chosen."""

    cards: tuple[Card, ...]
    caption: str


def sheet(examples: Sequence[AnswerExample], classes: Sequence[str]) -> Sheet:
    """Lay out the examples, at least one. classes: names by position."""
    first = examples[0]
    differ = percent(first.disagreements / max(first.looked_at, 1), 1)
    return Sheet(
        cards=tuple(_card(example, classes) for example in examples),
        caption=(
            f"Dense and compact say different classes of {first.disagreements:,} of the first {first.looked_at:,} test "
            f"images ({differ}). Those are shown first, then images on which both are wrong, then others."
        ),
    )


def _card(example: AnswerExample, classes: Sequence[str]) -> Card:
    def named(label: int) -> str:
        return classes[label] if label < len(classes) else f"class {label}"

    height, width, _ = example.frame.shape
    lines = tuple(
        Line(
            net=net, text=f"{named(guess.label)} ({percent(guess.probability, 0)})", right=guess.label == example.truth
        )
        for net, guess in (("dense", example.dense), ("compact", example.compact))
    )
    said = ", ".join(f"{line.net} says {line.text}" for line in lines)
    return Card(
        name=example.name,
        uri=png_uri(np.broadcast_to(example.frame, (height, width, 3))),
        alt=f"{example.name}: {named(example.truth)}; {said}",
        width=width,
        height=height,
        truth=named(example.truth),
        lines=lines,
    )
