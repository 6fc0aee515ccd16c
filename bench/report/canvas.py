"""What the report's plots are drawn on: inline SVG that follows the page, its font, its light and its dark colours.

matplotlib lays out and draws with colours that stand for roles ("ink", "compact", ...). Then the SVG is rewritten:
roles become CSS variables of the page, name spaces, metadata and unused ids go, the ids that stay are numbered. What
remains has no external reference and depends on the data alone. Text stays text, so it can be read aloud and found;
names come from users: they are drawn literally (no mathematics), and escaped outside of ASCII (no missing glyphs).
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROLES = {
    "ink": "#010203",
    "muted": "#040506",
    "rule": "#070809",
    "dense": "#0a0b0c",
    "compact": "#0d0e0f",
    "gone": "#101112",
    "page": "#131415",
}
"""What a colour means on the page -> the stand-in that matplotlib draws with."""
INK, MUTED, RULE, DENSE, COMPACT, GONE, PAGE = ROLES.values()

WIDTH = 5.0
"""Inches; 72 units of the SVG each. Small, so that text is still readable when a phone shrinks it."""
STYLE: dict[str, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgeslim",
    "text.parse_math": False,
    "font.size": 10.0,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_LONGEST_NAME = 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """svg: an <svg> element. alt: what it shows, in words. note: what a reader must know beside it, or ""."""

    title: str
    svg: str
    alt: str
    note: str = ""


def new_axes(height: float) -> tuple[Figure, Axes]:
    """A figure of the usual width. height: in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def legend_above(figure: Figure, axes: Axes, handles: Sequence[Artist] | None = None) -> None:
    """Above the axes, where no data can hide it."""
    entries = axes.get_legend_handles_labels()[0] if handles is None else handles
    figure.legend(handles=list(entries), loc="outside upper left", ncols=len(entries), borderaxespad=0.2, borderpad=0.2)


def short(name: str) -> str:
    """The end of a long name, which tells layers apart."""
    text = _plain(name)
    return text if len(text) <= _LONGEST_NAME else "…" + text[1 - _LONGEST_NAME :]


def _plain(name: str) -> str:
    return name.encode("unicode_escape").decode("ascii")


def svg_of(figure: Figure, name: str, alt: str) -> str:
    """Draw, and make the SVG part of a page; see the module docstring. `name` keeps ids apart on one page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    used = re.findall(r'(?:url\(|href=")#([\w.-]+)', buffer.getvalue())
    ids = {old: f"{name}-{number}" for number, old in enumerate(dict.fromkeys(used))}
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        kept = {_local(key): _rewrite(_local(key), value, ids) for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({key: value for key, value in kept.items() if value})
        element.tail = None
        if element.tag != "text":
            element.text = None
    box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"class": "plot", "viewBox": box, "role": "img", "aria-label": alt})
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _rewrite(key: str, value: str, ids: Mapping[str, str]) -> str:
    """An attribute as the page needs it, "" to drop it."""
    if key == "id":
        return ids.get(value, "")
    if key == "d":
        return " ".join(re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.2f}", value).split())
    if key == "transform" and value.startswith("rotate(-0 "):
        return ""
    if key == "style":
        value = re.sub(r"font-family:[^;]*(;|$)", "", value)
        for role, colour in ROLES.items():
            value = value.replace(colour, f"var(--{role})")
    return re.sub(r"#([\w.-]+)", lambda found: "#" + ids.get(found[1], found[1]), value).strip()
