"""The picture of a front: accuracy over latency, the nets that nobody beats joined by a line."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ..front import Front, FrontPoint
from .canvas import COMPACT, DENSE, INK, MUTED, PAGE, STYLE, Plot, legend_above, new_axes, short, svg_of
from .comparison import metric_name
from .numbers import MILLISECONDS, alike, score

_HEIGHT = 3.6
_GLYPH, _LINE, _MARKER, _RINGS = 5.2, 12.0, 4.0, 4
"""Points: the width of a letter of a label, its height, half a marker; and how many heights away a label may stand."""
Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""
_LEAST_REACH = 0.02
"""Of the axis of scores: below that their differences would look larger than they are."""


def front_plot(front: Front) -> Plot:
    """Every net of a front where it stands, with the interval of its latency."""
    metric = metric_name(front.metric)
    with style.context(STYLE, after_reset=True):
        figure, axes = new_axes(_HEIGHT)
        _draw_front(front, axes)
        _set_axes(front, axes, f"{short(metric)}, validation images")
        legend_above(figure, axes, _legend(front))
        figure.canvas.draw()  # settles where the axes are
        _label(front, axes, figure.dpi)
        alt = f"{metric} on the validation images over the median latency of a frame: {_words(front)}."
        note = "Bars: the interval of the speed-up, at the dense net's median. The axis of scores does not start at 0."
        return Plot(title=f"{metric} against latency", svg=svg_of(figure, "front", alt), alt=alt, note=note)


def _place(front: Front, net: FrontPoint) -> tuple[float, float]:
    """Where a net stands: its median latency in milliseconds, and its score."""
    return net.net.latency_ms.p50, net.validation[front.metric]


def _draw_front(front: Front, axes: Axes) -> None:
    """A marker for every net, and a line through those that no other beats."""
    best = sorted(_place(front, net) for net in front.nets if net.dominated_by is None)
    axes.plot([time for time, _ in best], [value for _, value in best], color=MUTED, linewidth=1.2, zorder=1)
    for net in front.nets:
        colour, marker = _look(net)
        time, value = _place(front, net)
        low, high = interval_ms(net, front.dense)
        axes.errorbar(
            time,
            value,
            xerr=None if net.speedup is None else [[max(time - low, 0.0)], [max(high - time, 0.0)]],
            fmt=marker,
            color=colour,
            markerfacecolor=colour if net.dominated_by is None else PAGE,
            markersize=8,
            markeredgewidth=1.6,
            capsize=6.5,
            elinewidth=1.4,
            zorder=2,
        )


def _set_axes(front: Front, axes: Axes, scores: str) -> None:
    """Latencies start at 0; scores fill the middle, but small differences are not drawn as large ones."""
    slowest = max(interval_ms(net, front.dense)[1] for net in front.nets)
    values = [_place(front, net)[1] for net in front.nets]
    middle, reach = (max(values) + min(values)) / 2, max(max(values) - min(values), _LEAST_REACH)
    axes.set(xlim=(0, 1.12 * slowest), ylim=(middle - 0.75 * reach, middle + 0.75 * reach))
    axes.set(xlabel="milliseconds a frame, median", ylabel=scores)
    axes.grid(True)


def _label(front: Front, axes: Axes, dpi: float) -> None:
    """The name of every net beside its marker; the axes stand where they will be drawn."""
    names = [short(net.name) for net in front.nets]
    at = axes.transData.transform([_place(front, net) for net in front.nets]) * 72 / dpi
    for name, net, y in zip(names, front.nets, label_places(names, [(float(x), float(y)) for x, y in at])):
        axes.annotate(
            name,
            _place(front, net),
            (0, y),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            color=INK,
            bbox={"facecolor": PAGE, "edgecolor": "none", "pad": 0.5},  # over the line of the front
        )


def _words(front: Front) -> str:
    """What is to be seen, for who cannot see it."""
    times = alike([_place(front, net)[0] for net in front.nets], MILLISECONDS)
    return "; ".join(
        f"{net.name} {time}, {score(_place(front, net)[1])}" + ("" if net.dominated_by is None else ", dominated")
        for net, time in zip(front.nets, times)
    )


def interval_ms(net: FrontPoint, dense: FrontPoint) -> tuple[float, float]:
    """Where a net's latency lies beside the dense one's median: that divided by the interval of the speed-up."""
    median = dense.net.latency_ms.p50
    return (median, median) if net.speedup is None else (median / net.speedup.high, median / net.speedup.low)


def _look(net: FrontPoint) -> tuple[str, str]:
    """Colour and marker, so that they differ without colour."""
    return (DENSE, "s") if net.speedup is None else (COMPACT, "o")


def _legend(front: Front) -> Sequence[Line2D]:
    """What is there to be seen."""
    entries = {
        "pruned": (COMPACT, "o", COMPACT),
        "dense": (DENSE, "s", DENSE),
        "hollow: dominated": (COMPACT, "o", PAGE),
    }
    seen = [name for name in entries if "hollow" not in name or any(net.dominated_by for net in front.nets)]
    return [
        Line2D([], [], color=colour, marker=marker, markerfacecolor=face, markersize=7, linestyle="none", label=name)
        for name, (colour, marker, face) in ((name, entries[name]) for name in seen)
    ]


def label_places(names: Sequence[str], at: Sequence[tuple[float, float]]) -> list[float]:
    """How far above (or below) its marker every label stands, in points, so that none meets another, or a marker.

    names: as they are drawn.  at: where the markers are, in points. A label for which there is no place stands above.
    """
    taken = [(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in at]
    places = []
    for name, (x, y) in zip(names, at):
        boxes = {
            offset: label_box(name, x, y + offset)
            for step in range(1, _RINGS + 1)
            for offset in (step * _LINE, -step * _LINE)
        }
        free = (offset for offset, box in boxes.items() if not any(meet(box, other) for other in taken))
        places.append(next(free, _LINE))
        taken.append(boxes[places[-1]])
    return places


def label_box(name: str, x: float, y: float) -> Box:
    """What a label around (x, y) covers, in points."""
    half = _GLYPH * len(name) / 2
    return (x - half, y - _LINE / 2, x + half, y + _LINE / 2)


def meet(a: Box, b: Box) -> bool:
    """Whether two boxes overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
