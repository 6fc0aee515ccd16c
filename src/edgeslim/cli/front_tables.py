"""A front as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from edgeslim.bench.front import Front


def front_table(front: Front) -> Table:
    """The dense net and every point, one a row; dominated ones say by whom."""
    from edgeslim.bench.report.front import front_rows, headline

    table = Table(title=headline(front), title_justify="left", box=box.SIMPLE)
    table.add_column("net")
    for name in (f"{front.metric}, validation", "test", "latency p50", "as fast (95 %)", "parameters", "MACs", "file"):
        table.add_column(name, justify="right")
    table.add_column("verdict", overflow="fold")
    for row, net in zip(front_rows(front), front.nets):
        figures = (row.validation, row.test, row.latency, row.speedup, row.parameters, row.macs, row.file)
        style = "" if net.dominated_by is None else "dim"
        table.add_row(Text(row.name), *figures, Text(row.verdict), style=style)
    return table
