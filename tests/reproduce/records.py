"""What was measured, one JSON line a run, kept as it came: tables are made from it and nothing else."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy
import onnxruntime
import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run. case, digest: which case with which settings.  seconds: wall clock, whatever else the machine did."""

    case: str
    digest: str
    seed: int
    numbers: Mapping[str, float]
    seconds: float
    day: str = field(default_factory=lambda: time.strftime("%Y-%m-%d", time.gmtime()))
    versions: Mapping[str, str] = field(
        default_factory=lambda: {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "onnxruntime": onnxruntime.__version__,
        }
    )
    threads: int = field(default_factory=torch.get_num_threads)


class Records:
    """The lines of one experiment's file, in the order of the runs."""

    def __init__(self, path: Path) -> None:
        """Read what is there; nothing where the file does not exist yet."""
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._records = [Record(**json.loads(line)) for line in lines]

    def add(self, record: Record) -> None:
        """Append a line; a reader never sees half of one that is not the last."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record), sort_keys=True) + "\n")
        self._records.append(record)

    def find(self, case: str, digest: str, seed: int | None = None) -> list[Record]:
        """The runs of a case with these settings, by seed."""
        found = [r for r in self._records if r.case == case and r.digest == digest and seed in (None, r.seed)]
        return sorted(found, key=lambda r: r.seed)
