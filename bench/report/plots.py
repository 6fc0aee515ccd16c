"""The plots of a run's report: latencies, widths, scores. How they are drawn is in `canvas`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import style
from matplotlib.patches import Patch

from edgeslim.runtime.manifest import LayerCoverage

from ..clock import NS_PER_MS
from ..result import Latency
from .canvas import COMPACT, DENSE, GONE, INK, MUTED, STYLE, Plot, legend_above, new_axes, short, svg_of
from .numbers import MILLISECONDS, alike, quantity, score

_MOST_POINTS = 500


def latency_distribution(sides: Mapping[str, Latency]) -> Plot:
    """Share of frames done within a time, from every sample. sides: "dense" and "compact", or only the latter."""
    limit = _time_limit(sides)
    with style.context(STYLE, after_reset=True):
        figure, axes = new_axes(3.0)
        medians = alike([s.p50_ms for s in sides.values()], MILLISECONDS)
        tails = alike([s.p99_ms for s in sides.values()], MILLISECONDS)
        for (name, latency), median in zip(sides.items(), medians):
            colour, dash = _side_look(name)
            label = f"{name}, median {median}"
            axes.ecdf(_milliseconds(latency.samples_ns), color=colour, linestyle=dash, linewidth=2, label=label)
            axes.plot(latency.p50_ms, 0.5, "o", color=colour, markersize=6, clip_on=False)
            if latency.p99_ms <= limit:
                axes.plot(latency.p99_ms, 0.99, "D", color=colour, markersize=5, clip_on=False)
        axes.set(xlim=(0, limit), ylim=(0, 1.02), xlabel="milliseconds a frame", ylabel="frames done")
        axes.set_yticks([0, 0.25, 0.5, 0.75, 0.9, 1], ["0", "25 %", "50 %", "75 %", "90 %", "100 %"])
        axes.grid(True)
        legend_above(figure, axes)
        words = [f"{name}: half of the frames within {m}, 99 % within {t}" for name, m, t in zip(sides, medians, tails)]
        alt = f"Cumulative distribution of the latency. {'; '.join(words)}."
        taken = " and ".join(f"{latency.n:,} {name}" for name, latency in sides.items())
        note = f"{taken} samples. Dot: median. Diamond: p99. " + _beyond(sides, limit)
        return Plot(title="Latency, every sample", svg=svg_of(figure, "ecdf", alt), alt=alt, note=note.strip())


def latency_in_order(sides: Mapping[str, Latency]) -> Plot:
    """Every sample in the order in which it was taken: drift, throttling and disturbances show here."""
    limit, thinned = _time_limit(sides), 1
    with style.context(STYLE, after_reset=True):
        figure, axes = new_axes(3.0)
        for name, latency in sides.items():
            colour, _ = _side_look(name)
            step = -(-latency.n // _MOST_POINTS)
            thinned = max(thinned, step)
            places, times = range(1, latency.n + 1), _milliseconds(latency.samples_ns)
            marker = "o" if name == "compact" else "x"
            axes.plot(places[::step], times[::step], marker, color=colour, markersize=3.2, label=name)
            beyond = [place for place, time in zip(places, times) if time > limit]
            axes.plot(beyond, [limit] * len(beyond), "^", color=colour, markersize=6, clip_on=False)
        axes.set(xlim=(0, None), ylim=(0, limit), xlabel="sample", ylabel="milliseconds a frame")
        axes.grid(True, axis="y")
        legend_above(figure, axes)
        alt = "Latency of every sample in the order taken, which shows whether the machine was steady."
        note = "Triangles at the top edge lie beyond it. " if _beyond(sides, limit) else ""
        note += f"Of {thinned} samples one is drawn." if thinned > 1 else ""
        return Plot(title="Latency, in the order taken", svg=svg_of(figure, "order", alt), alt=alt, note=note.strip())


def channel_widths(layers: Sequence[LayerCoverage]) -> Plot:
    """Output channels of every layer before and after, in graph order. Needs at least one layer."""
    before, after = sum(layer.width_before for layer in layers), sum(layer.width_after for layer in layers)
    widest = max(1, *(layer.width_before for layer in layers))
    with style.context(STYLE, after_reset=True):
        figure, axes = new_axes(0.9 + 0.2 * len(layers))
        for place, layer in enumerate(layers):
            cut = layer.width_before - layer.width_after
            colour = COMPACT if cut else DENSE
            axes.barh(place, layer.width_after, height=0.66, color=colour)
            if cut:
                axes.barh(place, cut, left=layer.width_after, height=0.62, color=GONE, edgecolor=MUTED, linewidth=0.7)
            text = f"{layer.width_before} → {layer.width_after}" if cut else f"{layer.width_after}"
            axes.text(layer.width_before + 0.015 * widest, place, text, va="center", fontsize=9, color=INK)
        axes.set_yticks(
            range(len(layers)), [short(layer.layer.removesuffix(".weight")) for layer in layers], fontsize=9
        )
        axes.set(xlim=(0, 1.22 * widest), ylim=(len(layers) - 0.4, -0.6), xlabel="output channels")
        axes.tick_params(axis="y", length=0)
        handles = [
            Patch(color=COMPACT, label="kept"),
            Patch(facecolor=GONE, edgecolor=MUTED, label="removed"),
            Patch(color=DENSE, label="layer left whole"),
        ]
        legend_above(figure, axes, handles)
        whole = sum(layer.width_before == layer.width_after for layer in layers)
        alt = (
            f"Output channels of {len(layers)} layers in graph order: {before:,} before, {after:,} after; "
            f"{whole} layers kept their width. The coverage table lists them."
        )
        return Plot(title="Channels of every layer", svg=svg_of(figure, "widths", alt), alt=alt)


def scores_by_stage(stages: Mapping[str, float], metric: str) -> Plot:
    """One metric on the validation images after each training stage. Needs at least one stage."""
    names, values = list(stages), list(stages.values())
    middle, reach = (max(values) + min(values)) / 2, max(max(values) - min(values), 0.02)
    with style.context(STYLE, after_reset=True):
        figure, axes = new_axes(0.8 + 0.3 * len(names))
        places = range(len(names))
        axes.axvline(values[0], color=DENSE, linestyle="--", linewidth=1)
        axes.hlines(places, values[0], values, color=COMPACT, linewidth=1.6)
        axes.plot(values, places, "o", color=COMPACT, markersize=7)
        for place, value in zip(places, values):
            side, align = (-8, "right") if value < values[0] else (8, "left")  # away from the line to the first stage
            axes.annotate(
                score(value), (value, place), (side, 0), textcoords="offset points", va="center", ha=align, fontsize=9.5
            )
        axes.set_yticks(places, [short(name) for name in names])
        axes.set(xlim=(middle - 0.8 * reach, middle + 0.8 * reach), ylim=(len(names) - 0.5, -0.5))
        axes.set_xlabel(f"{short(metric)} on the validation images")
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
        words = ", ".join(f"{name} {score(value)}" for name, value in stages.items())
        alt = f"{metric} on the validation images by training stage: {words}."
        note = f"The dashed line is the first stage, {names[0]}. The axis does not start at 0."
        return Plot(title=f"{metric} by training stage", svg=svg_of(figure, "stages", alt), alt=alt, note=note)


def _side_look(name: str) -> tuple[str, str]:
    """Colour and dash, so that the lines differ without colour."""
    return (COMPACT, "-") if name == "compact" else (DENSE, "--")


def _milliseconds(samples_ns: Sequence[int]) -> list[float]:
    return [sample / NS_PER_MS for sample in samples_ns]


def _time_limit(sides: Mapping[str, Latency]) -> float:
    """Where a time axis ends: at the slowest sample, or after the p99 if the slowest is far out."""
    tail = max(latency.p99_ms for latency in sides.values())
    slowest = max(max(_milliseconds(latency.samples_ns)) for latency in sides.values())
    return max(1.03 * slowest if slowest <= 1.5 * tail else 1.2 * tail, 1e-6)


def _beyond(sides: Mapping[str, Latency], limit: float) -> str:
    """Says what the axis leaves out, "" if nothing."""
    parts = []
    for name, latency in sides.items():
        out = [time for time in _milliseconds(latency.samples_ns) if time > limit]
        if out:
            parts.append(f"{len(out)} of {latency.n:,} {name} samples, the slowest {quantity(max(out), MILLISECONDS)}")
    return f"Beyond the axis: {'; '.join(parts)}." if parts else ""
