"""Run experiments and print their tables.

python -m tests.reproduce --data PATH [--quick] [--seeds N] [--threads N] [EXPERIMENT ...]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from . import EXPERIMENTS
from .case import Experiment, Place
from .notes import Log
from .records import Record, Records


def main() -> None:
    """Run what has no record yet, case by case and seed by seed; then print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.reproduce")
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"of {', '.join(EXPERIMENTS)}; else all")
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist, cifar10, camvid, stare, weights")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="records and runs (runs/reproduce)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every case (3); one with --quick")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument("--quick", action="store_true", help="the ten-minute subset: every method, small budgets")
    parser.add_argument("--only", default="", help="cases with this text in their name")
    parser.add_argument("--tables", action="store_true", help="print the tables of what was recorded, run nothing")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if unknown := set(given.experiments) - set(EXPERIMENTS):
        parser.error(f"no experiment is called {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
    seeds = range(1 if given.quick else given.seeds)
    for name in given.experiments or EXPERIMENTS:
        experiment = EXPERIMENTS[name]
        records = Records(given.out / f"{name}{'-quick' if given.quick else ''}.jsonl")
        if not given.tables:
            _run(experiment, records, Place(data=given.data, work=given.out / name), seeds, given.quick, given.only)
        print(f"## {experiment.about}\n\n{experiment.tables(records, experiment.cases(given.quick))}\n", flush=True)


def _run(experiment: Experiment, records: Records, place: Place, seeds: range, quick: bool, only: str) -> None:
    for seed in seeds:
        for case in experiment.cases(quick):
            if only not in case.name or records.find(case.name, case.digest, seed):
                continue
            Log(f"{experiment.name}: {case.name}").stage(f"seed {seed}")
            started = time.perf_counter()
            numbers = dict(case.run(seed, place))
            seconds = time.perf_counter() - started
            records.add(Record(case=case.name, digest=case.digest, seed=seed, numbers=numbers, seconds=seconds))


if __name__ == "__main__":
    main()
