"""Every torchvision CNN: `make zoo`, or `python -m tests.zoo --out zoo.json [name ...]`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import warnings
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .check import Outcome, check, seen_reasons
from .vision import zoo


def main() -> int:
    """Print the table; 1 if any net is wrong or ends in an exception."""
    nets = zoo()
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="nets to check, all where none is named")
    parser.add_argument("--out", type=Path, default=Path("runs/zoo.json"), help="where the JSON goes")
    given = parser.parse_args()
    missing = sorted(set(given.names) - set(nets))
    if missing:
        parser.error(f"not in the zoo: {', '.join(missing)}")
    warnings.simplefilter("ignore")  # what torch and torchvision say about themselves
    console, outcomes = Console(stderr=True), list[Outcome]()
    for number, name in enumerate(chosen := given.names or sorted(nets), start=1):
        outcomes.append(outcome := check(name, nets[name].build, (1, 3, nets[name].size, nets[name].size)))
        console.print(f"{number}/{len(chosen)} {name}: {outcome.verdict} {outcome.exception or ''}", highlight=False)
        _write(given.out, outcomes)  # a long job that is stopped keeps what it has seen
    show(outcomes)
    return int(any(outcome.verdict != "equal" for outcome in outcomes))


def show(outcomes: list[Outcome]) -> None:
    """One row a net, and how many layers of all nets stayed for which reason."""
    table = Table("net", "verdict", "pruned/layers", "channels", "trace", "analyse", "remove", "largest error",
                  "main reasons for what stayed")  # fmt: skip
    for o in outcomes:
        errors = [e for e in (o.error_half, o.error_single) if e is not None]
        share = f"{o.prunable_channels / o.channels:.0%}" if o.channels else ""
        reasons = o.exception or ", ".join(f"{n}: {reason}" for reason, n in list(o.reasons.items())[:2])
        times = ["" if s is None else f"{s:.1f}" for s in (o.trace_s, o.analyze_s, o.remove_s)]
        table.add_row(o.name, o.verdict, f"{o.pruned_layers}/{o.layers}", share, *times,
                      f"{max(errors):.1e}" if errors else "", reasons)  # fmt: skip
    console = Console(width=200)
    console.print(table)
    for reason, number in seen_reasons(outcomes).most_common(20):
        console.print(f"{number:6} layers stayed: {reason}", highlight=False)


def _write(path: Path, outcomes: list[Outcome]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [{**dataclasses.asdict(o), "verdict": o.verdict} for o in outcomes]
    path.write_text(json.dumps({"schema": 1, "nets": entries}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
