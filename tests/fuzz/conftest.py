"""How many nets are tried, and what came of it.

`pytest` tries the same hundred nets every time; EDGESLIM_FUZZ=2000 (or `make fuzz`) as many new ones as it says.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

COUNT = int(os.environ.get("EDGESLIM_FUZZ", "0"))


@dataclass
class Tally:
    """What a run has seen."""

    graphs: int = 0
    prunable: int = 0
    nodes: int = 0
    units: int = 0
    alone: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)

    def count(self, *, nodes: int, units: int, reasons: Counter[str]) -> None:
        """Add one graph; reasons are told apart without the names of tensors in them."""
        self.graphs += 1
        self.nodes += nodes
        self.units += units
        self.prunable += units > 0
        for reason, count in reasons.items():
            self.reasons[re.sub(r" [twcni]\d\w*", "", reason)] += count

    def lines(self) -> list[str]:
        seconds = time.monotonic() - self.started
        layers = sum(self.reasons.values())
        return [
            f"{self.graphs} graphs with {self.nodes} nodes, {self.prunable} of them cut; {seconds:.0f} s",
            f"{self.units} units cut together, {self.alone} one at a time",
            f"{layers} layers declined:",
            *(f"{count:7d}  {reason}" for reason, count in self.reasons.most_common(30)),
        ]


_TALLY = Tally()


@pytest.fixture(scope="session")
def tally() -> Tally:
    """Counts of the whole session, printed at its end."""
    return _TALLY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was tried, where somebody asked for volume."""
    if COUNT and _TALLY.graphs:
        terminalreporter.section("fuzz")
        for line in _TALLY.lines():
            terminalreporter.write_line(line)
