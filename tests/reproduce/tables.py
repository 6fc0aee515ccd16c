"""Markdown tables with means and spreads over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from .case import Case
from .records import Record, Records

Column = tuple[str, Callable[[Record], float], str]
"""Heading, the number of a run, and its format (".2f")."""


def table(records: Records, cases: Sequence[Case], first: str, columns: Sequence[Column]) -> str:
    """One row a case that was run: its name, mean ± standard deviation over the seeds, and how many seeds."""
    lines = [f"| {first} | {' | '.join(c[0] for c in columns)} | seeds |", f"|---{'|---:' * (len(columns) + 1)}|"]
    for case in cases:
        found = records.find(case.name, case.digest)
        if found:
            cells = [spread([number(r) for r in found], form) for _, number, form in columns]
            lines.append(f"| {case.name} | {' | '.join(cells)} | {len(found)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], form: str) -> str:
    """ "0.81 ± 0.02": mean and sample standard deviation; the value alone where there is one, or all are the same."""
    if len(set(values)) == 1:
        return format(values[0], form)
    return f"{fmean(values):{form}} ± {stdev(values):{form}}"


def number(name: str, factor: float = 1.0) -> Callable[[Record], float]:
    """A column's number by its name."""
    return lambda record: factor * record.numbers[name]
