"""A benchmark result as a table on the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.markup import escape
from rich.table import Table

from ..result import BenchResult, Side

_MB = 1e6
_Read = Callable[[Side], "float | None"]

_ROWS: tuple[tuple[str, str, _Read], ...] = (
    ("latency p50", "{:.3f} ms", lambda side: side.latency.p50_ms),
    ("latency p90", "{:.3f} ms", lambda side: side.latency.p90_ms),
    ("latency p99", "{:.3f} ms", lambda side: side.latency.p99_ms),
    ("spread (middle half)", "{:.1%}", lambda side: side.latency.spread),
    ("GPU compute p50", "{:.3f} ms", lambda side: _gpu(side, "compute")),
    ("enqueue p50", "{:.3f} ms", lambda side: _gpu(side, "enqueue")),
    ("copy in p50", "{:.3f} ms", lambda side: _gpu(side, "copy_in")),
    ("copy out p50", "{:.3f} ms", lambda side: _gpu(side, "copy_out")),
    ("throughput", "{:.1f} frames/s", lambda side: None if side.gpu is None else side.gpu.throughput_hz),
    ("samples", "{:.0f}", lambda side: side.latency.n),
    ("parameters", "{:,.0f}", lambda side: side.parameters),
    ("MACs", "{:,.0f}", lambda side: side.macs),
    ("model file", "{:,.0f} B", lambda side: side.memory.file_bytes),
    ("weights", "{:,.0f} B", lambda side: side.memory.weight_bytes),
    ("activations", "{:.2f} MB", lambda side: _arena(side, "activation_bytes")),
    ("arena held", "{:.2f} MB", lambda side: _arena(side, "held_bytes")),
    ("peak RSS growth", "{:.2f} MB", lambda side: _mb(side.memory.peak_rss_bytes)),
    ("engine", "{:,.0f} B", lambda side: side.memory.engine_bytes),
    ("engine activations", "{:.2f} MB", lambda side: _mb(side.memory.engine_activation_bytes)),
    ("inputs and outputs", "{:.2f} MB", lambda side: _mb(side.memory.io_bytes)),
    ("GPU memory, process", "{:.2f} MB", lambda side: _mb(side.memory.gpu_process_bytes)),
    ("shared memory gone", "{:.2f} MB", lambda side: _mb(side.memory.system_bytes)),
)
_ENGINES = frozenset(
    {
        "GPU compute p50", "enqueue p50", "copy in p50", "copy out p50", "throughput", "engine", "engine activations",
        "inputs and outputs", "GPU memory, process", "shared memory gone",
    }
)  # fmt: skip
"""Rows of engines, which are left out where nothing ran as one."""


_MORE_IS_BETTER = frozenset({"throughput"})
"""Rows whose ratio is turned over, so that above 1 always speaks for the subject."""


def bench_table(result: BenchResult) -> Table:
    """One row a figure, one column a bundle, and their ratio; unmeasured figures show as a dash."""
    sides = [result.subject] if result.against is None else [result.against, result.subject]
    table = Table(title=_title(result), caption=escape(_caption(result)), caption_justify="left")
    table.add_column("")
    for side in sides:
        table.add_column(escape(_heading(side)), justify="right")
    if len(sides) == 2:
        table.add_column("ratio", justify="right")
    for label, form, read in _ROWS:
        values = [read(side) for side in sides]
        if label in _ENGINES and not any(values):
            continue
        cells = ["-" if value is None else form.format(value) for value in values]
        compared = values[::-1] if label in _MORE_IS_BETTER else values
        table.add_row(label, *cells, *([_ratio(*compared)] if len(sides) == 2 and "samples" not in label else []))
    return table


def _heading(side: Side) -> str:
    words = [side.name, *([side.precision] if side.precision != "fp32" else [])]
    return "\n".join((*words, *([side.backend] if side.backend not in (None, "onnxruntime") else [])))


def _gpu(side: Side, name: str) -> float | None:
    latency = None if side.gpu is None else getattr(side.gpu, name)
    return None if latency is None else float(latency.p50_ms)


def _ratio(before: float | None, after: float | None) -> str:
    return f"{before / after:.2f}x" if before and after else "-"


def _arena(side: Side, name: str) -> float | None:
    return None if side.memory.arena is None else _mb(getattr(side.memory.arena, name))


def _mb(count: int | None) -> float | None:
    return None if count is None else count / _MB


def _title(result: BenchResult) -> str:
    if result.speedup is None:
        return "Benchmark"
    speed = result.speedup
    return f"{speed.ratio:.2f}x as fast ({speed.confidence:.0%} interval {speed.low:.2f} to {speed.high:.2f})"


def _caption(result: BenchResult) -> str:
    settings, machine = result.settings, result.machine
    height, width = settings.frame_size
    spin = "spinning" if settings.spin else "not spinning"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    named = {"driver": machine.driver, "power mode": machine.power_mode, "L4T": machine.l4t, "JetPack": machine.jetpack}
    accelerator = [machine.gpu] if machine.gpu else []
    accelerator += [f"{name} {value}" for name, value in named.items() if value is not None]
    lines = [
        f"frame {height}x{width}, {settings.backend}, threads {settings.threads}, {spin}, order {settings.order}",
        f"{machine.board or machine.cpu or machine.architecture}, {machine.usable_cores or '?'} usable cores",
        *([", ".join(accelerator)] if accelerator else []),
        f"{machine.os}; Python {machine.python}, {versions}",
        *(f"warning: {warning}" for warning in result.warnings),
    ]
    return "\n".join(lines)
