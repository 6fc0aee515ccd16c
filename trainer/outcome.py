"""The result of a run as data: what `compress --json` prints and `result.json` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeslim.bench import Net, Speedup
from edgeslim.runtime.certificate import Certificate
from edgeslim.runtime.manifest import LayerCoverage
from edgeslim.runtime.variants import Variant
from edgeslim.schema import dumps

from .budget.reached import Reached

SCHEMA = 3
"""2: `precisions`. 3: `reached`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run produced.

    reached: what the compact net takes of what a target limits, None for other budgets.  precisions: of the compact
    net, beside fp32.  stages: training stage -> scores on the validation images.
    """

    schema: int = SCHEMA
    name: str
    dense: Net
    compact: Net
    speedup: Speedup | None
    reached: Reached | None
    certificate: Certificate
    coverage: tuple[LayerCoverage, ...]
    coverage_summary: str
    precisions: tuple[Variant, ...]
    bundle: str
    report: str
    stages: Mapping[str, Mapping[str, float]]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """The outcome as text."""
        return dumps(self)
