"""What an experiment is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .records import Records

Numbers = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a case finds and puts things.

    data: the folder with mnist, cifar10, camvid, stare and weights.  work: for runs, shared by all cases of an
    experiment, so that one dense net serves many.
    """

    data: Path
    work: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One net, trained and cut in one way; with a seed it is one run.

    name: as tables show it.  settings: all that its numbers depend on beside the seed, JSON values.  run: (seed, place)
    -> numbers by name.
    """

    name: str
    settings: Mapping[str, Any]
    run: Callable[[int, Place], Numbers]

    @property
    def digest(self) -> str:
        """Of the settings: a case whose settings change is another case."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """cases: (quick) -> all of them, or those of the ten-minute subset.  tables: Markdown from what was recorded."""

    name: str
    about: str
    cases: Callable[[bool], Sequence[Case]]
    tables: Callable[[Records, Sequence[Case]], str]
