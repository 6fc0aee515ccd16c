"""What `edgeslim profile` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from edgeslim.bench.profile import Fingerprint, ModelError, Step
    from edgeslim.bench.profile.check import Checked

_BAR = 48


def devices_table(rows: Sequence[tuple[Fingerprint, int, int]]) -> Table:
    """Devices with how many nets and operators were measured on each."""
    table = Table(title="devices", title_justify="left", box=box.SIMPLE)
    table.add_column("fingerprint")
    table.add_column("device", overflow="fold")
    for name in ("nets", "operators"):
        table.add_column(name, justify="right")
    for device, nets, operators in rows:
        table.add_row(device.short, Text(str(device)), f"{nets:,}", f"{operators:,}")
    return table


def error_line(error: ModelError | None) -> str:
    """How well the model predicts; None where it has seen all plans there are."""
    if error is None:
        return "the net has so few plans that all were measured"
    return (
        f"{error.plans} plans that it had not seen: predicted within {error.median:.1%} in the median, "
        f"{error.worst:.1%} at worst"
    )


def checked_table(checked: Sequence[Checked]) -> Table:
    """Predicted against measured, plan by plan."""
    table = Table(title="latency as a share of the dense net's", title_justify="left", box=box.SIMPLE)
    for name in ("predicted", "measured", "95 % interval", "error"):
        table.add_column(name, justify="right")
    for one in checked:
        table.add_row(
            f"{one.predicted:.3f}", f"{one.measured:.3f}", f"{one.low:.3f} to {one.high:.3f}", f"{one.error:+.1%}"
        )
    return table


def staircase_lines(latencies_us: Mapping[int, float], step: Step) -> str:
    """The staircase as bars, with the useful widths marked."""
    most = max(latencies_us.values())
    rows = []
    for width, latency_us in sorted(latencies_us.items()):
        useful = width % step.multiple == 0 or width in step.below
        bar = "█" * max(1, round(_BAR * latency_us / most))
        rows.append(f"{width:>4} {'*' if useful else ' '} {latency_us:>9.1f} us {bar}")
    below = f", and {', '.join(map(str, step.below))}" if step.below else ""
    return "\n".join([*rows, f"useful widths (*): multiples of {step.multiple}{below}"])
