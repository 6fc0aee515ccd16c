"""The report of `compress --pareto`: the picture of the front, its table, and links to every net's report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..front import Front, FrontPoint
from ..result import BenchResult
from . import numbers
from .comparison import metric_name
from .front_plot import front_plot
from .numbers import BYTES, COUNTS, MILLISECONDS, alike, count, score
from .page import machine_facts, settings_facts, template


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPage:
    """Everything the page shows.

    benches: of every point, against the dense net, in the front's order.  links: name of a point -> address of its own
    report, relative to this page.  command: the exact command that made it.
    """

    front: Front
    benches: Sequence[BenchResult]
    links: Mapping[str, str]
    command: str

    def __post_init__(self) -> None:
        if len(self.benches) != len(self.front.points):
            raise ValueError(f"{len(self.benches)} benchmarks of {len(self.front.points)} points")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontRow:
    """One net of the table, in words."""

    name: str
    validation: str
    test: str
    latency: str
    speedup: str
    parameters: str
    macs: str
    file: str
    verdict: str


def front_rows(front: Front) -> list[FrontRow]:
    """The dense net and every point. What was not measured says so."""
    nets = front.nets
    columns = (
        alike([net.net.latency_ms.p50 for net in nets], MILLISECONDS),
        alike([net.net.macs for net in nets], COUNTS),
        alike([net.net.file_bytes for net in nets], BYTES),
    )
    return [
        FrontRow(
            name=net.name,
            validation=score(net.validation[front.metric]),
            test=score(net.net.metrics.get(front.metric)),
            latency=latency,
            speedup=_speedup(net),
            parameters=count(net.net.parameters),
            macs=macs,
            file=file,
            verdict=verdict(net),
        )
        for net, latency, macs, file in zip(nets, *columns)
    ]


def verdict(net: FrontPoint) -> str:
    """Whether it is on the front, and what else it stands for."""
    words = "front" if net.dominated_by is None else f"dominated by {net.dominated_by}"
    return words + (f"; the same plan as {', '.join(net.same_plan)}" if net.same_plan else "")


def headline(front: Front) -> str:
    """One sentence, without its full stop."""
    best = [point for point in front.points if point.dominated_by is None]
    if not best:
        return f"None of {len(front.points)} pruned nets is on the front: the dense net is as good as any of them"
    fastest = max(best, key=lambda point: 0.0 if point.speedup is None else point.speedup.ratio)
    before, after = (score(net.validation[front.metric]) for net in (front.dense, fastest))
    return (
        f"{len(best)} of {len(front.points)} pruned nets on the front; the fastest is {_speedup(fastest)} as fast, "
        f"{metric_name(front.metric)} {before} → {after} on the validation images"
    )


def render_front(page: FrontPage) -> str:
    """The report as HTML text."""
    front, first = page.front, page.benches[0]
    plot = front_plot(front)
    sections = {
        "name": front.name,
        "headline": headline(front),
        "metric": metric_name(front.metric),
        "plot": plot,
        "svg": Markup(plot.svg),  # our own SVG, in which every name is escaped already
        "rows": front_rows(front),
        "links": page.links,
        "warnings": list(dict.fromkeys(_warnings(page))),
        "notes": front.notes,
        "command": page.command,
        "machine": machine_facts(first.machine),
        "settings": settings_facts(first.settings, first.speedup),
        "written_by": first.written_by,
    }
    return template("front.html.j2").render(sections)


def _warnings(page: FrontPage) -> Iterator[str]:
    for bench in page.benches:
        yield from bench.warnings


def _speedup(net: FrontPoint) -> str:
    speed = net.speedup
    if speed is None:
        return "1"
    return f"{numbers.factor(speed.ratio)}× ({numbers.factor(speed.low)}–{numbers.factor(speed.high)})"
