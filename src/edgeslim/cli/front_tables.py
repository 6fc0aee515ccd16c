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
    table.add_column("net", no_wrap=True)
    for name in (f"{front.metric}\nvalid.", "\ntest", "latency\np50", "as fast\n(95 %)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for row, net in zip(front_rows(front), front.nets):
        style = "" if net.dominated_by is None else "dim"
        figures = (row.validation, row.test, row.latency, row.speedup)
        table.add_row(Text(row.name), *figures, Text(row.verdict), style=style)
    return table
