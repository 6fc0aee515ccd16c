"""An engine as a table for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeslim.exporter.engine import Built
    from edgeslim.runtime import Choice, StoredEngine


def engine_table(built: Built) -> Table:
    """What was built, for what, and what happened when it was run."""
    stored, record, spec = built.stored, built.stored.record, built.stored.record.spec
    verb = "found" if built.reused else "built"
    table = Table(
        title=f"{verb} {record.bundle} in {spec.precision}", title_justify="left", box=box.SIMPLE, show_header=False
    )
    table.add_column("what", style="bold", no_wrap=True)
    table.add_column("value", overflow="fold")
    rows = [
        ("engine", str(stored.path)),
        ("size", f"{record.engine.bytes:,} bytes"),
        ("TensorRT", f"{spec.backend} {spec.version}"),
        ("for", " ".join(word for word in (spec.where, spec.gpu, spec.board) if word)),
        ("frames", str(spec.frames)),
        ("flags", ", ".join(spec.flags) or "none"),
        *((name, value) for name, value in spec.settings.items()),
        ("built in", f"{record.build_seconds:.1f} s"),
        ("golden vectors", _golden(built)),
    ]
    rows += [(f"validation {name}", f"{value:.4f}") for name, value in record.validation.items()]
    if spec.dla_core is not None:
        rows.append((f"DLA core {spec.dla_core}", f"{len(record.on_gpu)} layers fell back to the GPU"))
        rows += [("", f"{layer}: {reason}") for layer, reason in record.on_gpu.items()]
    for name, value in rows:
        table.add_row(name, value if name == "golden vectors" else escape(value))
    return table


def engines_table(engines: Sequence[StoredEngine]) -> Table:
    """All engines of a bundle: for what each was built, and whether it was ever run."""
    table = Table(title="engines", title_justify="left", box=box.SIMPLE)
    for column in ("precision", "for", "TensorRT", "frames", "bytes", "golden vectors"):
        table.add_column(column, overflow="fold", justify="right" if column == "bytes" else "left")
    for engine in engines:
        record, spec = engine.record, engine.record.spec
        place = escape(" ".join(word for word in (spec.where, spec.gpu) if word))
        checked = "equal" if record.golden is not None else "never run"
        size = f"{record.engine.bytes:,}"
        table.add_row(spec.precision, place, f"{spec.backend} {spec.version}", str(spec.frames), size, checked)
    return table


def choice_table(choice: Choice, precision: str) -> Table:
    """What runs the bundle here, and why not something else."""
    table = Table(title=f"what runs {precision} here", title_justify="left", box=box.SIMPLE, show_header=False)
    table.add_column("backend", style="bold", no_wrap=True)
    table.add_column("why", overflow="fold")
    table.add_row(choice.backend, escape(choice.reason))
    for backend, reason in choice.passed_over.items():
        table.add_row(f"not {backend}", escape(reason), style="dim")
    return table


def _golden(built: Built) -> str:
    golden, unchecked = built.stored.record.golden, built.stored.record.unchecked
    if golden is None:
        return f"[yellow]not run[/]: {escape(unchecked or '')}"
    allowed = f"{golden.atol:.2g} + {golden.rtol:.2g} * |b|"
    return f"[green]equal[/]: {golden.cases} cases, largest error {golden.max_abs:.2g} (allowed {allowed})"
