"""Plans that were made before in a run. Measurements differ from time to time, and a run that is resumed must go on
with the plan that its checkpoints were trained under."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeslim.atomic import write_text
from edgeslim.errors import first_line
from edgeslim.progress import Progress, Silent
from edgeslim.schema import SchemaError, dumps, loads

from .reached import Reached


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    cut: tuple[int, ...]
    reached: Reached | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plans:
    schema: int = 1
    plans: Mapping[str, _Plan] = field(default_factory=dict)


class Memo(Protocol):
    """Remembers plans by all that they were made from."""

    def recall(self, key: str) -> tuple[frozenset[int], Reached | None] | None:
        """The plan of a key, None where there is none."""
        ...

    def keep(self, key: str, cut: frozenset[int], reached: Reached | None) -> None:
        """Remember a plan."""
        ...


def memo_key(scores: NDArray[np.float64], share: float, *words: str) -> str:
    """What a plan is made from, as a key."""
    text = "\n".join([*words, repr(share)])
    return hashlib.sha256(text.encode() + np.ascontiguousarray(scores).tobytes()).hexdigest()


class NoMemo:
    """Every plan is made anew."""

    def recall(self, key: str) -> tuple[frozenset[int], Reached | None] | None:
        """Nothing."""
        return None

    def keep(self, key: str, cut: frozenset[int], reached: Reached | None) -> None:
        """Forget it."""


@dataclass(frozen=True, slots=True)
class FileMemo:
    """In a JSON file of the run's directory, in the order in which they were kept. A file that cannot be read is as
    good as none, and that is said."""

    path: Path
    progress: Progress = field(default_factory=Silent)

    def recall(self, key: str) -> tuple[frozenset[int], Reached | None] | None:
        """See Memo."""
        plan = self._read().plans.get(key)
        return None if plan is None else (frozenset(plan.cut), plan.reached)

    def keep(self, key: str, cut: frozenset[int], reached: Reached | None) -> None:
        """See Memo."""
        plans = {old: plan for old, plan in self._read().plans.items() if old != key}
        plans[key] = _Plan(cut=tuple(sorted(cut)), reached=reached)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, dumps(_Plans(plans=plans)))

    def of_cut(self, cut: frozenset[int], target: str, size: tuple[int, int] | None) -> Reached | None:
        """What the plan of a target with this cut takes, or the narrowest of which it cuts more; None where none was
        remembered. Of several, on one device after the other, the last. target: by `level_words`.  size: of its image.
        """
        found = [
            plan
            for plan in self._read().plans.values()
            if plan.reached is not None
            and (plan.reached.target, plan.reached.size) == (target, size)
            and cut.issuperset(plan.cut)
        ]
        narrowest = max(reversed(found), key=lambda plan: len(plan.cut), default=None)
        if narrowest is None or narrowest.reached is None:
            return None
        return replace(narrowest.reached, narrowed=len(narrowest.cut) < len(cut))

    def _read(self) -> _Plans:
        try:
            return loads(_Plans, self.path.read_bytes())
        except FileNotFoundError:
            return _Plans()
        except (OSError, SchemaError) as error:
            self.progress.note(f"{self.path} cannot be read, so plans are made anew: {first_line(error)}")
            return _Plans()
