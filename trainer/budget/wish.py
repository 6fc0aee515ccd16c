"""What a caller asks for in words: `ratio=0.5`, or `target="macs=0.5x"`."""

from __future__ import annotations

import re

from edgeslim.errors import ConfigError

from ..recipe import BudgetSpec, MacsBudget, RatioBudget

_MACS = re.compile(r"macs=(0?\.\d+)x?")


def parse_wish(ratio: float | None, target: str | None, min_share: float | None = None) -> BudgetSpec:
    """The budget behind exactly one of the two. min_share: for a target, None for its default. Raises ConfigError."""
    if (ratio is None) == (target is None):
        raise ConfigError("give either ratio or target", 'for example ratio=0.5, or target="macs=0.5x"')
    if ratio is not None:
        if not isinstance(ratio, (int, float)) or not 0.0 < ratio < 1.0:
            raise ConfigError(f"ratio is {ratio!r}; it must lie between 0 and 1", "0.5 cuts half of every family")
        if min_share is not None:
            raise ConfigError("min_share goes with target", "a ratio says of every family what stays")
        return RatioBudget(name="ratio", ratio=ratio)
    found = _MACS.fullmatch(target.replace(" ", "")) if isinstance(target, str) else None
    if found is None or not 0.0 < float(found[1]) < 1.0:
        raise ConfigError(f"target {target!r} is not understood", 'write "macs=0.5x", the share of MACs to keep')
    if min_share is None:
        return MacsBudget(name="macs", keep=float(found[1]))
    if isinstance(min_share, bool) or not isinstance(min_share, (int, float)) or not 0.0 <= min_share < 1.0:
        raise ConfigError(f"min_share is {min_share!r}; it must be at least 0 and below 1", "0.25 keeps a quarter")
    return MacsBudget(name="macs", keep=float(found[1]), min_share=min_share)
