"""What a caller asks for in words: `ratio=0.5`, or `target="macs=0.5x"`."""

from __future__ import annotations

import re

from edgeslim.errors import ConfigError

from ..recipe import BudgetSpec, MacsBudget, RatioBudget

_MACS = re.compile(r"macs=(0?\.\d+)x?")


def parse_wish(ratio: float | None, target: str | None) -> BudgetSpec:
    """The budget behind exactly one of the two. Raises ConfigError."""
    if (ratio is None) == (target is None):
        raise ConfigError("give either ratio or target", 'for example ratio=0.5, or target="macs=0.5x"')
    if ratio is not None:
        if not isinstance(ratio, (int, float)) or not 0.0 < ratio < 1.0:
            raise ConfigError(f"ratio is {ratio!r}; it must lie between 0 and 1", "0.5 cuts half of every family")
        return RatioBudget(name="ratio", ratio=ratio)
    found = _MACS.fullmatch(target.replace(" ", "")) if isinstance(target, str) else None
    if found is None or not 0.0 < float(found[1]) < 1.0:
        raise ConfigError(f"target {target!r} is not understood", 'write "macs=0.5x", the share of MACs to keep')
    return MacsBudget(name="macs", keep=float(found[1]))
