"""The picture of a front: accuracy over latency, the nets that nobody beats joined by a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import style
from matplotlib.lines import Line2D

from ..front import Front, FrontPoint
from .canvas import COMPACT, DENSE, INK, MUTED, STYLE, Plot, legend_above, new_axes, short, svg_of
from .comparison import metric_name
from .numbers import MILLISECONDS, alike, score

_HEIGHT = 3.6
_LEAST_REACH = 0.02
"""Of the axis of scores: below that their differences would look larger than they are."""


def front_plot(front: Front) -> Plot:
    """Every net of a front where it stands, with the interval of its latency."""
    metric = metric_name(front.metric)
    values = {net.name: net.validation[front.metric] for net in front.nets}
    times = {net.name: net.net.latency_ms.p50 for net in front.nets}
    spans = {net.name: interval_ms(net, front.dense) for net in front.nets}
    with style.context(STYLE, after_reset=True):
        figure, axes = new_axes(_HEIGHT)
        best = sorted((times[net.name], values[net.name]) for net in front.nets if net.dominated_by is None)
        axes.plot([time for time, _ in best], [value for _, value in best], color=MUTED, linewidth=1.2, zorder=1)
        for net in front.nets:
            colour, marker = _look(net)
            low, high = spans[net.name]
            time, value = times[net.name], values[net.name]
            axes.errorbar(
                time,
                value,
                xerr=[[max(time - low, 0.0)], [max(high - time, 0.0)]],
                fmt=marker,
                color=colour,
                markerfacecolor=colour if net.dominated_by is None else "white",
                markersize=8,
                markeredgewidth=1.6,
                capsize=4,
                elinewidth=1.4,
                zorder=2,
            )
        slowest, middle = max(high for _, high in spans.values()), (max(values.values()) + min(values.values())) / 2
        reach = max(max(values.values()) - min(values.values()), _LEAST_REACH)
        axes.set(xlim=(0, 1.12 * slowest), ylim=(middle - 0.75 * reach, middle + 0.75 * reach))
        axes.set(xlabel="milliseconds a frame, median", ylabel=f"{short(metric)}, validation images")
        axes.grid(True)
        for name, (x, y) in _label_places(front.nets, times, values, 1.12 * slowest, 1.5 * reach).items():
            axes.annotate(
                short(name),
                (times[name], values[name]),
                (x, y),
                textcoords="offset points",
                ha="center" if x == 0 else "left",
                va="center",
                fontsize=9,
                color=INK,
            )
        legend_above(figure, axes, _legend(front))
        figures = alike(list(times.values()), MILLISECONDS)
        words = "; ".join(
            f"{net.name} {time}, {score(values[net.name])}" + ("" if net.dominated_by is None else ", dominated")
            for net, time in zip(front.nets, figures)
        )
        alt = f"{metric} on the validation images over the median latency of a frame: {words}."
        note = "Bars: the interval of the speed-up, at the dense net's median. The axis of scores does not start at 0."
        return Plot(title=f"{metric} against latency", svg=svg_of(figure, "front", alt), alt=alt, note=note)


def interval_ms(net: FrontPoint, dense: FrontPoint) -> tuple[float, float]:
    """Where a net's latency lies beside the dense one's median: that divided by the interval of the speed-up."""
    median = dense.net.latency_ms.p50
    return (median, median) if net.speedup is None else (median / net.speedup.high, median / net.speedup.low)


def _look(net: FrontPoint) -> tuple[str, str]:
    """Colour and marker, so that they differ without colour."""
    return (DENSE, "s") if net.speedup is None else (COMPACT, "o")


def _legend(front: Front) -> Sequence[Line2D]:
    """What is there to be seen."""
    entries = {"pruned": (COMPACT, "o", COMPACT), "dense": (DENSE, "s", DENSE), "dominated": (COMPACT, "o", "white")}
    seen = [name for name in entries if name != "dominated" or any(net.dominated_by for net in front.nets)]
    return [
        Line2D([], [], color=colour, marker=marker, markerfacecolor=face, markersize=7, linestyle="none", label=name)
        for name, (colour, marker, face) in ((name, entries[name]) for name in seen)
    ]


def _label_places(
    nets: Sequence[FrontPoint], times: Mapping[str, float], values: Mapping[str, float], wide: float, tall: float
) -> dict[str, tuple[float, float]]:
    """Name -> where its label stands beside its marker, in points: above, or below where one above would meet another.

    wide, tall: what the axes span, in milliseconds and in scores.
    """
    above, below = (0.0, 12.0), (0.0, -12.0)
    places: dict[str, tuple[float, float]] = {}
    for net in sorted(nets, key=lambda net: times[net.name]):
        crowd = [
            name
            for name, place in places.items()
            if place == above
            and abs(times[name] - times[net.name]) < 0.2 * wide
            and abs(values[name] - values[net.name]) < 0.12 * tall
        ]
        places[net.name] = below if crowd else above
    return places
