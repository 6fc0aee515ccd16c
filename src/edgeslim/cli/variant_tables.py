"""A bundle's precisions as tables for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from edgeslim.runtime import GroupChoice, Variant


def variants_table(variants: Sequence[Variant]) -> Table:
    """One row a precision: what it weighs, how far it is from fp32, what it scores beside it."""
    from edgeslim.runtime.validation import main_score

    table = Table(title="precisions", title_justify="left", box=box.SIMPLE)
    table.add_column("name", style="bold")
    for column in ("weights", "distance", "score", "fp32", "made with"):
        table.add_column(column, justify="left" if column == "made with" else "right", overflow="fold")
    for variant in variants:
        main = main_score(variant.model_metrics)
        score, model = (
            (f"{main} {variant.metrics[main]:.4f}", f"{variant.model_metrics[main]:.4f}")
            if main is not None and main in variant.metrics
            else ("not measured", "")
        )
        made = ", ".join(f"{name} {value}" for name, value in variant.settings.items() if name != "validation")
        distance = f"{variant.deviation.relative_rms:.2%}"
        table.add_row(variant.name, f"{variant.weight_bytes:,} B", distance, score, model, made)
    return table


def details(variant: Variant) -> Iterator[Table]:
    """What stayed in fp32 and why, and what a search found, where there is any of it."""
    if variant.islands:
        table = Table(title=f"{variant.name}: in fp32", title_justify="left", box=box.SIMPLE)
        table.add_column("node", overflow="fold")
        table.add_column("reason", overflow="fold")
        for node, reason in variant.islands.items():
            table.add_row(node, reason)
        yield table
    if variant.search:
        yield search_table(variant.name, variant.search)


def search_table(name: str, choices: Sequence[GroupChoice]) -> Table:
    """What every group of layers gained in time and lost in score, and what was decided."""
    table = Table(title=f"{name}: measured group by group", title_justify="left", box=box.SIMPLE)
    for column in ("group", "precision", "gain, ms", "interval", "loss", "why"):
        table.add_column(column, justify="right" if column in ("gain, ms", "loss") else "left", overflow="fold")
    for choice in choices:
        interval = (
            ""
            if choice.gain_low_ms is None or choice.gain_high_ms is None
            else f"{choice.gain_low_ms:+.3f} to {choice.gain_high_ms:+.3f}"
        )
        gain = "-" if choice.gain_ms is None else f"{choice.gain_ms:+.3f}"
        loss = "-" if choice.loss is None else f"{choice.loss:+.4f}"
        table.add_row(choice.group, choice.precision, gain, interval, loss, choice.reason)
    return table
